"""CPython under its own regression tests, as Debian packages them; the interpreter is the machine's, the tests are unpacked beside it."""
import glob
import os
import re

import packages
import suite
from pieces import Piece

FILES_A_PIECE = 60
# Ask for a network or a terminal, take many minutes, or are of the build and not of the interpreter.
LEFT_OUT = {"test_asyncio", "test_concurrent_futures", "test_multiprocessing_fork", "test_multiprocessing_forkserver",
            "test_multiprocessing_spawn", "test_tools", "test_idle", "test_tkinter", "test_ttk_guionly", "test_tcl", "test_tix", "test_distutils",
            "test_ensurepip", "test_venv", "test_lib2to3", "test_peg_generator", "test_test_typing", "test_regrtest", "test_gdb", "test_zipfile64",
            "test_turtle", "test_largefile", "test_socket", "test_ssl", "test_nntplib", "test_urllib2net", "test_urllibnet", "test_ftplib"}
# The first asks a child for all descriptors that it has open; pnode's are among them (docs/behaviour.md). The other hangs plainly, now and
# then, until its quarter of an hour is over: daemon threads while the interpreter ends.
CASES_LEFT_OUT = ["test_pass_fds_redirected", "test_4_daemon_threads"]


def library_of(folder):
    return f"{folder}/lib"


def prepare(folder):
    """The library with its tests: links to the machine's, and the package's folder `test` in it."""
    library = library_of(folder)
    if not os.path.isdir(f"{library}/test"):
        package = packages.fetch_package("libpython3.11-testsuite", folder)
        os.makedirs(library, exist_ok=True)
        for name in glob.glob("/usr/lib/python3.11/*"):
            if os.path.basename(name) != "test":
                os.symlink(name, f"{library}/{os.path.basename(name)}")
        os.rename(f"{package}/lib/python3.11/test", f"{library}/test")
        for name in glob.glob("/usr/lib/python3.11/test/*"):
            if not os.path.exists(f"{library}/test/{os.path.basename(name)}"):
                os.symlink(name, f"{library}/test/{os.path.basename(name)}")
    return packages.installed_version("python3.11")


def read(output, _code):
    """`0:00:12 load avg: 1.4 [ 7/60] test_array passed`; what came after the name tells it apart."""
    found = re.findall(r"^\d+:\d\d:\d\d .*?\[ *\d+/\d+(?:/\d+)?\] (test_\w+)(?: .*)?$", output, re.MULTILINE)
    failed = set()
    for block in re.findall(r"^\d+ tests? (?:failed|altered the execution environment)[^:]*:\n((?: +test_.*\n)+)", output, re.MULTILINE):
        failed |= set(block.split())
    failed |= set(re.findall(r"\] (test_\w+) (?:failed|crashed|timed out)", output))
    skipped = set(re.findall(r"\] (test_\w+) skipped", output))
    return {name: name not in failed for name in found if name not in skipped}


def pieces(folder):
    tests = f"{library_of(folder)}/test"
    names = sorted(os.path.basename(name).removesuffix(".py") for name in glob.glob(f"{tests}/test_*"))
    names = [name for name in names if name not in LEFT_OUT]
    made = []
    for at in range(0, len(names), FILES_A_PIECE):
        part = names[at:at + FILES_A_PIECE]
        ignored = [word for case in CASES_LEFT_OUT for word in ("--ignore", case)]
        command = [suite.UNDER, "/usr/bin/python3.11", "-m", "test", "-j2", "--timeout", "900", *ignored, *part]
        made.append(Piece(f"{part[0]}..{part[-1]}", command, read, seconds_max=2000, folder=folder, under_stress=False,
                          environment={"PYTHONPATH": library_of(folder), "LC_ALL": "C.UTF-8"}))
    return made


SUITES = [suite.Suite("python", "Python", ["python3.11"], "8M", prepare, pieces)]
