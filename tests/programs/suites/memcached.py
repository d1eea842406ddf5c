"""memcached under its own suite: Perl scripts that start a server each."""
import glob
import os
import re

import packages
import suite
from pieces import Piece

FILES_A_PIECE = 24
STRESSED = "t/getset.t"  # the piece that begins with it: a minute and a half, most tests; the others wait for seconds of the clock


def source_of(folder):
    return packages.fetch_source("memcached", folder)


def prepare(folder):
    source = source_of(folder)
    if not os.path.exists(f"{source}/Makefile"):
        packages.checked(["sh", "./configure", "--enable-64bit"], cwd=source)
    server = f"{source}/memcached-debug"
    if not suite.is_under(server):
        packages.checked(["make", f"-j{os.cpu_count()}", "memcached", "memcached-debug", "timedrun", "sizes", "testapp",
                          "ACLOCAL=:", "AUTOCONF=:", "AUTOMAKE=:", "AUTOHEADER=:"], cwd=source)
        suite.put_under(server)
    return packages.source_version(source)


def read(output, _code):
    """What `prove --verbose` prints: a line for each file, then its tests by number."""
    tests, script = {}, ""
    for line in output.splitlines():
        if header := re.match(r"(t/\S+\.t) \.\.", line):
            script = header.group(1)
        if found := re.match(r"(ok|not ok) (\d+)", line):
            tests[f"{script} {found.group(2)}"] = found.group(1) == "ok"
        if re.match(r"(Dubious|Failed \d+/\d+ subtests|Parse errors)", line):
            tests[f"{script} as a whole"] = False
        if line == "ok":
            tests[f"{script} as a whole"] = True
    return tests


def pieces(folder):
    source = source_of(folder)
    scripts = sorted(os.path.relpath(name, source) for name in glob.glob(f"{source}/t/*.t"))
    parts = [scripts[at:at + FILES_A_PIECE] for at in range(0, len(scripts), FILES_A_PIECE)]
    # The suite refuses to fill a server as root unless it may say so itself, and does.
    return [Piece(f"{part[0]}..{part[-1]}", ["prove", "--verbose", *part], read, seconds_max=800, folder=source,
                  under_stress=part[0] == STRESSED) for part in parts]


SUITES = [suite.Suite("memcached", "memcached", ["build-essential", "dpkg-dev", "libevent-dev"], "4M", prepare, pieces)]
