"""What a suite needs of Debian. Packages are installed by quickstart; sources are fetched and unpacked in the suite's folder. Lists and
caches for the sources are kept there too, so that the machine's own apt configuration is not touched."""
import glob
import os
import re
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def checked(command, **options):
    """Its output; a failure ends the suite with all of it."""
    done = subprocess.run(command, check=False, **(QUIET | options))
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout}")
    return done.stdout


def installed_version(package):
    """"": not installed."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", package], capture_output=True, text=True, check=False)
    status, _, version = done.stdout.partition(" ")
    return version if status == "installed" else ""


def require(packages):
    missing = [name for name in packages if not installed_version(name)]
    if missing:
        raise SystemExit(f"missing, and installed by `./quickstart test --full`: {' '.join(missing)}")


def archives():
    """Entries for the sources of what the machine has entries for packages of."""
    form = f"deb-src [signed-by={KEYRING}] $(REPO_URI) $(RELEASE) $(COMPONENT)"
    return "".join(sorted(set(checked(["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"]).splitlines(True))))


def apt_options(folder):
    """Of an apt that knows sources alone, and keeps everything in `folder`."""
    for part in ("lists/partial", "cache/archives/partial"):
        os.makedirs(f"{folder}/{part}", exist_ok=True)
    with open(f"{folder}/sources.list", "w", encoding="utf-8") as file:
        file.write(archives())
    return ["-qq", "-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
            "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root"]


def fetch_source(name, folder, like=""):
    """The unpacked source's folder; of the version that the package `like` is installed in, if it is and the archive has it."""
    found = glob.glob(f"{folder}/{name}-[0-9]*/debian")
    if not found:
        options = apt_options(f"{folder}/apt")
        checked(["apt-get", *options, "update"])
        versions = re.findall(r"^Version: (.+)", checked(["apt-cache", *options, "showsrc", name]), re.MULTILINE)
        wanted = installed_version(like) if like else ""
        # The newest may be listed and not be there (yet, or any more): then the next.
        for version in sorted(dict.fromkeys(versions), key=lambda each: each != wanted):
            print(f"fetching the source of {name}={version}", flush=True)
            command = ["apt-get", *options, "source", f"{name}={version}"]
            if subprocess.run(command, cwd=folder, check=False, **QUIET).returncode == 0:
                break
        else:
            raise SystemExit(f"no source of {name} can be fetched: {', '.join(versions)}")
        found = glob.glob(f"{folder}/{name}-[0-9]*/debian")
    return os.path.dirname(found[0])


def fetch_package(name, folder):
    """A package's files, unpacked and not installed."""
    if not os.path.isdir(f"{folder}/usr"):
        checked(["apt-get", "download", name], cwd=folder)
        checked(["dpkg-deb", "-x", glob.glob(f"{folder}/{name}_*.deb")[0], folder])
    return f"{folder}/usr"


def source_version(folder):
    """Debian's version of an unpacked source."""
    return checked(["dpkg-parsechangelog", "-S", "Version", "-l", f"{folder}/debian/changelog"]).strip()


def version_of(package, source):
    """Of a program that is the machine's, tested by an unpacked source, which the archive may have of another version only."""
    installed, tests = installed_version(package), source_version(source)
    return installed if installed == tests else f"{installed} (its tests {tests})"
