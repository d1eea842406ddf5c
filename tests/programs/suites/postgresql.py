"""PostgreSQL under its own regression tests: initdb, a server in a cluster of its own, and pg_regress with the parallel schedule.

Debian's server and pg_regress; the tests and the functions in C they need are from Debian's source. shared_buffers are shared memory
and the kernel's; what pnode manages is each backend's own memory, a few MiB of catalogues, plans and sorting: hence the smallest near limit
there is. PostgreSQL refuses root."""
import os
import re
import shutil

import packages
import suite
from pieces import Piece

BINARIES = "/usr/lib/postgresql/15/bin"
LIBRARIES = "/usr/lib/postgresql/15/lib"
REGRESS = "/usr/lib/postgresql/15/lib/pgxs/src/test/regress/pg_regress"


def source_of(folder):
    return packages.fetch_source("postgresql-15", folder, like="postgresql-15")


def prepare(folder):
    tests = f"{source_of(folder)}/src/test/regress"
    if not os.path.exists(f"{tests}/regress.so"):
        include = packages.checked([f"{BINARIES}/pg_config", "--includedir-server"]).strip()
        packages.checked(["cc", "-O2", "-shared", "-fPIC", f"-I{include}", "-o", "regress.so", "regress.c"], cwd=tests)
    # The triggers' test looks for two modules where the tests are.
    for module in ("autoinc.so", "refint.so"):
        if not os.path.exists(f"{tests}/{module}"):
            os.symlink(f"{LIBRARIES}/{module}", f"{tests}/{module}")
    return packages.version_of("postgresql-15", source_of(folder))


def read(output, _code):
    """`test boolean ... ok 312 ms` or, in a group, `     boolean ... ok 312 ms`; newer: `ok 1 - boolean 312 ms`."""
    found = re.findall(r"^(?:test|\s+)?\s*(\w+)\s+\.\.\. (ok|FAILED|failed)", output, re.MULTILINE)
    tests = {name: word == "ok" for name, word in found}
    tests["initdb"] = "initdb: done" in output
    return tests


def pieces(folder):
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "postgresql.sh")
    command = ["sh", script, BINARIES, REGRESS, f"{source_of(folder)}/src/test/regress", f"{folder}/run"]
    shutil.rmtree(f"{folder}/run", ignore_errors=True)
    os.makedirs(f"{folder}/run")
    os.chmod(f"{folder}/run", 0o777)
    return [Piece("installcheck", suite.not_root(command), read, seconds_max=1800, environment={"SUITE_CHILDREN": "1"})]


SUITES = [suite.Suite("postgresql", "PostgreSQL", ["build-essential", "dpkg-dev", "postgresql-15", "postgresql-server-dev-15"],
                      "1M", prepare, pieces)]
