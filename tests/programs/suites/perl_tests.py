"""Perl under the tests of its core, from Debian's source; the interpreter is the machine's, with the modules that are installed."""
import glob
import os
import re
import shutil

import packages
import suite
from pieces import Piece

VERSION = "5.36"
PARTS = {"base, cmd, comp": ("base", "cmd", "comp"), "io": ("io",), "op a-h": ("op/[a-h]*",), "op i-r": ("op/[i-r]*",),
         "op s-z": ("op/[s-z]*",), "re": ("re",), "uni, lib, mro": ("uni", "lib", "mro")}
STRESSED = ("base, cmd, comp",)  # a minute; the others take an hour
# Ask for a build of Perl, look at its sources, or take memory until there is none.
LEFT_OUT = {"op/fork.t", "op/bigexec.t", "re/bigfuzzy_not_utf8.t"}


def machines_libraries():
    architecture = packages.checked(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"]).strip()
    return (f"/usr/share/perl/{VERSION}", f"/usr/lib/{architecture}/perl/{VERSION}", f"/usr/lib/{architecture}/perl-base")


def prepare(folder):
    """The tests look for `../lib`: links to what is installed."""
    source = packages.fetch_source("perl", folder, like="perl")
    core = f"{folder}/core"
    if not os.path.isdir(core):
        for library in machines_libraries():
            packages.checked(["cp", "-rs", "--remove-destination", f"{library}/.", f"{core}.new/lib"]
                             if os.path.isdir(f"{core}.new/lib") else ["sh", "-c", f"mkdir -p {core}.new/lib && cp -rs {library}/. {core}.new/lib"])
        shutil.copytree(f"{source}/t", f"{core}.new/t", symlinks=True)
        os.rename(f"{core}.new", core)
    return packages.version_of("perl", source)


def read(output, _code):
    """What `prove --verbose` prints: a line for each file, its tests, then a word on the whole."""
    tests, script = {}, ""
    for line in output.splitlines():
        if header := re.match(r"(\S+\.t) \.\.", line):
            script = header.group(1)
        if line == "ok" or line.startswith(("skipped", "Dubious", "Failed ", "Parse errors", "No subtests")):
            if line.startswith("skipped"):
                continue
            tests[script] = line == "ok" and tests.get(script, True)
    return tests


def files(folder, patterns):
    found = []
    for pattern in patterns:
        found += glob.glob(f"{folder}/core/t/{pattern}.t" if "/" in pattern else f"{folder}/core/t/{pattern}/*.t")
    names = sorted(os.path.relpath(name, f"{folder}/core/t") for name in found)
    return [name for name in names if name not in LEFT_OUT]


def pieces(folder):
    return [Piece(name, ["prove", "--verbose", "-j", "1", "-e", f"{suite.UNDER} /usr/bin/perl", *files(folder, patterns)], read, seconds_max=800,
                  folder=f"{folder}/core/t", under_stress=name in STRESSED, environment={"PERL_CORE": "1", "LC_ALL": "C"}) for name, patterns in PARTS.items()]


SUITES = [suite.Suite("perl", "Perl", ["perl", "dpkg-dev"], "4M", prepare, pieces)]
