"""stress-ng: its memory stressors with --verify, each for some seconds; a stressor that finds a wrong byte or a wrong answer fails."""
import os
import re

import packages
import suite
from pieces import Piece

SECONDS = int(os.environ.get("SUITE_STRESS_SECONDS", "3"))
STRESSORS = {
    "brk": [], "fork": [], "io-uring": [], "madvise": [], "malloc": ["--malloc-bytes", "32M"], "memcpy": [], "memfd": [], "memrate": [],
    "mincore": [], "mlock": [], "mlockmany": [], "mmap": ["--mmap-bytes", "32M"], "mmapaddr": [], "mmapfixed": [], "mmapfork": [],
    "mmapmany": [], "mprotect": [], "mremap": ["--mremap-bytes", "16M"], "msync": [], "munmap": [], "pageswap": [],
    "pipe": [], "readahead": [], "shm": [], "sigbus": [], "sigsegv": [], "splice": [], "stack": [], "sysbadaddr": [],
    "tmpfs": [], "userfaultfd": ["--userfaultfd-bytes", "16M"], "vfork": [], "vforkmany": [], "vm": ["--vm-bytes", "32M"],
    "vm-rw": ["--vm-rw-bytes", "16M"], "vm-splice": [], "zero": [], "bigheap": ["--bigheap-bytes", "64M"], "heapsort": [], "hsearch": [],
    "lsearch": [], "matrix": [], "mergesort": [], "qsort": [], "radixsort": [], "skiplist": [], "str": [], "stream": ["--stream-l3-size", "4M"], "tree": [], "tsearch": [],
    "judy": [], "bsearch": [], "sparsematrix": [], "aio": [], "clone": [], "exec": [], "futex": [], "sem": [], "sigaltstack" : [], "sigfd": [],
    "context": [], "spawn": [], "daemon": [], "zombie": [], "wait": [], "cacheline": [], "env": [], "get": [], "poll": [], "epoll": [], "sock": [],
}


def read(name):
    def read_one(output, code):
        complaints = re.findall(r"^stress-ng: (?:fail|error): +\[\d+\] (.*)$", output, re.MULTILINE)
        skipped = "skipped" in output and code in (2, 3, 4)
        return {name: (code == 0 and not complaints) or skipped} if not skipped else {}
    return read_one


def pieces(folder):
    # Of SUITE_PNODE the shell is told when the suite runs.
    return [Piece(name, [suite.UNDER, "stress-ng", f"--{name}", "2", "--verify", "--timeout", str(SECONDS), "--oomable", "--abort",
                         *options], read(name), seconds_max=120, folder=folder, may_fail_at_times=False,
                  environment={"SUITE_CHILDREN": "1"})
            for name, options in STRESSORS.items()]


SUITES = [suite.Suite("stress-ng", "stress-ng", ["stress-ng"], "2M", lambda folder: packages.installed_version("stress-ng"), pieces)]
