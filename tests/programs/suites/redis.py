"""Redis under its own suite, which starts some hundred servers: data types, Lua, BGSAVE, AOF and its rewrite, replication, cluster.

Twice: as upstream builds it, with a jemalloc of its own under names of its own (the mmap door), and Debian's redis-server, which uses
the system's allocator (the malloc door). Not under stress: its tests wait for the server by the clock, and give up."""
import collections
import os
import re

import packages
import suite
from pieces import Piece

PACKAGES = ["build-essential", "dpkg-dev", "tcl", "redis-server"]
DEBIANS_ALLOCATOR = "debian/patches/0004-Add-support-for-USE_SYSTEM_JEMALLOC-flag.patch"
FILES_A_PIECE = 14
# Goes over all that a server holds, in the order of its tables, until it holds together: with a near limit of the others' a matter of
# hours, and of the clock for these tests, plainly on a busy machine too: what takes more than 30 ms is not a failure here. Debian's
# allocator has no such thing, and its tests of it are none.
DEFRAGMENTATION = "unit/memefficiency"
# Replicas that wait for each other: the longest of all by far, so that it is a piece by itself where it takes longest.
REPLICATION = "integration/replication"
NO_LATENCY = ["--no-latency"]  # a switch of the suite's own
PORTS = 4000  # of each of the two, so that they can be run at once


def prepare(folder):
    source = packages.fetch_source("redis", folder, like="redis-server")
    server = f"{source}/src/redis-server"
    if not suite.is_under(server):
        if not os.path.exists(f"{source}/with_its_own_allocator"):  # a build that was ended is gone on with
            packages.checked(["patch", "-R", "-p1", "-s", "-i", DEBIANS_ALLOCATOR], cwd=source)
            packages.checked(["touch", "with_its_own_allocator"], cwd=source)
        packages.checked(["make", f"-j{os.cpu_count()}"], cwd=source)
        suite.put_under(server)
    return packages.source_version(source)


def prepare_debian(folder):
    """The same tests and tools; the server is a link to Debian's."""
    prepare(folder)
    real = f"{source_of(folder)}/src/real/redis-server"
    if not os.path.islink(real):
        os.remove(real)
        os.symlink("/usr/bin/redis-server", real)
    return packages.version_of("redis-server", source_of(folder))


def source_of(folder):
    return packages.fetch_source("redis", folder)


def is_drawn(name):
    """The layouts of replicas that are tried, and who is killed when, are drawn anew in each run: all of a kind are one test."""
    return name.startswith("PSYNC2")


def read(output, _code):
    """Other tests of one name are told apart by counting. An exception ends a whole run: what did not come is missing then."""
    tests, seen = {}, collections.Counter()
    for mark, name in re.findall(r"^\[(ok|err|exception|timeout)\]: (.*)$", re.sub(r"\x1b\[[0-9;]*m", "", output), re.MULTILINE):
        name = re.sub(r"( \(\d+ ms\)| in tests/\S+\.tcl)$", "", name)
        if is_drawn(name):
            kind = re.sub(r"(?<=Set )#\d+|(?<=from )#\d+|(?<=x = )\d+", "N", name)
            tests[kind] = tests.get(kind, True) and mark == "ok"
            continue
        seen[name] += 1
        tests[name if seen[name] == 1 else f"{name} #{seen[name]}"] = mark == "ok"
    return tests


def names_of_all(folder):
    with open(f"{source_of(folder)}/tests/test_helper.tcl", encoding="utf-8") as file:
        return re.search(r"set ::all_tests \{(.*?)\}", file.read(), re.DOTALL).group(1).split()


def piece_of(folder, title, names, first_port, options=()):
    options = [*options, *(word for name in names for word in ("--single", name))]
    return Piece(title, ["./runtest", "--clients", "4", "--timeout", "1200", "--baseport", str(first_port), "--portcount", str(PORTS), *options],
                 read, seconds_max=1500, folder=source_of(folder), under_stress=False)


def in_parts(names, alone):
    """Some files each; what stands first in a part and is to be alone is a part by itself."""
    for at in range(0, len(names), FILES_A_PIECE):
        part = names[at:at + FILES_A_PIECE]
        if part[0] == alone:
            yield [part.pop(0)]
        yield part


def pieces(folder, first_port, alone="", without=""):
    titled = [(f"{part[0]}..{part[-1]}" if len(part) > 1 else part[0], part) for part in in_parts(names_of_all(folder), alone)]
    return [piece_of(folder, title, [name for name in part if name != without], first_port) for title, part in titled]


SUITES = [
    suite.Suite("redis", "Redis, as upstream builds it", PACKAGES, "2M", prepare,
                lambda folder: pieces(folder, 21111, alone=REPLICATION, without=DEFRAGMENTATION)),
    suite.Suite("redis-defragmenting", "Redis, as upstream builds it, defragmenting", PACKAGES, "16M", prepare,
                lambda folder: [piece_of(folder, DEFRAGMENTATION, [DEFRAGMENTATION], 21111, NO_LATENCY)]),
    suite.Suite("redis-debian", "Redis of Debian", PACKAGES, "2M", prepare_debian, lambda folder: pieces(folder, 21111 + PORTS)),
]
