"""SQLite under its own quick set, run by its testfixture, and the shell with a database in memory."""
import os
import re
import shutil

import packages
import suite
from pieces import Piece

FIRST_LETTERS = ("ab", "c-e", "f", "g-l", "m-q", "r-s", "t-v", "w-z0-9")
STRESSED = ("f",)  # foreign keys, full-text search, functions: five minutes; all of them would take hours
SHELL = """\
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
  INSERT INTO t SELECT i, printf('%.40c%d', char(97 + i % 26), i * 7919 % 100003), zeroblob(i % 90) FROM n;
CREATE INDEX b ON t(b);
UPDATE t SET b = b || a WHERE a % 3 = 0;
DELETE FROM t WHERE a % 7 = 0;
SELECT count(*), sum(length(b)), sum(length(c)), min(b), max(b) FROM t;
SELECT sum(a * length(x)) FROM (SELECT a, group_concat(b, ',') AS x FROM t GROUP BY a / 1000);
PRAGMA integrity_check;
VACUUM;
SELECT count(DISTINCT b) FROM t INDEXED BY b;
PRAGMA quick_check;
"""


def source_of(folder):
    return packages.fetch_source("sqlite3", folder, like="sqlite3")


def prepare(folder):
    source = source_of(folder)
    if not os.path.exists(f"{source}/Makefile"):
        architecture = packages.checked(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"]).strip()
        packages.checked(["sh", "./configure", f"--with-tcl=/usr/lib/{architecture}/tcl8.6", "--disable-shared"], cwd=source)
    fixture = f"{source}/testfixture"
    if not suite.is_under(fixture):
        packages.checked(["make", "testfixture", "sqlite3"], cwd=source)
        suite.put_under(fixture)
        suite.put_under(f"{source}/sqlite3")
    return packages.source_version(source)


def name_of(test):
    """Of a test that lets an allocation fail, then the next one, until none is left to fail, all rounds are one test: how many there are
    is the allocator's, and jemalloc's, which pnode brings, is not the C library's."""
    test = re.sub(r"(transient|persistent)\.\d+(?![^.])", r"\1", test)
    test = re.sub(r"pc=\d+\.iFail=\d+", "pc=N.iFail=N", test)
    return re.sub(r"^(mallocC-\d+)\.\d+", r"\1.N", test)


def read_quick(output, _code):
    """`select1-1.1... Ok`; each file ends with its time. What has no word after it did not end, or failed."""
    tests = {}
    for name, word in re.findall(r"^(\S+)\.\.\.( Ok|)$", output, re.MULTILINE):
        tests[name_of(name)] = tests.get(name_of(name), True) and word == " Ok"
    for name in re.findall(r"^! (\S+) (?:expected|got)", output, re.MULTILINE):
        tests[name_of(name)] = False
    for file in re.findall(r"^Time: (\S+\.test) \d+ ms$", output, re.MULTILINE):
        tests[f"{file} to its end"] = True
    return tests


def read_shell(output, code):
    """The sums are what SQLite gives without pnode: both must be the same, and the database whole."""
    return {f"line {number}: {line}": code == 0 for number, line in enumerate(output.splitlines())}


def pieces(folder):
    """Tests of what a user may not do end the run where the user is root."""
    source = source_of(folder)
    shutil.rmtree(f"{source}/testdir", ignore_errors=True)
    os.chmod(source, 0o777)
    made = [Piece(f"quick {letters}", suite.not_root(["./testfixture", "test/permutations.test", "quick"]), read_quick, seconds_max=2400,
                  folder=source, environment={"QUICKTEST_OMIT": f"^[^{letters}]"}, under_stress=letters in STRESSED)
            for letters in FIRST_LETTERS]
    made.append(Piece("shell in memory", ["./sqlite3", "-bail", ":memory:", SHELL], read_shell, folder=source, may_fail_at_times=False))
    return made


SUITES = [suite.Suite("sqlite", "SQLite", ["build-essential", "dpkg-dev", "tcl-dev", "sqlite3"], "4M", prepare, pieces)]
