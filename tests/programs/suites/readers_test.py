#!/usr/bin/env python3
"""What is read from a suite's output decides what counts as lost under pnode: so that is tested itself, and the report."""
import os
import tempfile
import unittest

import memcached
import pieces
import postgresql
import python_tests
import redis
import report
import sqlite
import stress_ng


class Readers(unittest.TestCase):
    def test_redis(self):
        output = ("[\x1b[0;32;49mok\x1b[0m]: GET (3 ms)\n[ok]: GET (4 ms)\n[\x1b[0;31;49merr\x1b[0m]: SET in tests/unit/x.tcl\n"
                  "Expected 1\n[exception]: Executing test client: gone.\n[ignore]: large\n")
        self.assertEqual(redis.read(output, 1), {"GET": True, "GET #2": True, "SET": False, "Executing test client: gone.": False})

    def test_redis_draws_its_layouts(self):
        output = ("[ok]: PSYNC2: Set #4 to replicate from #3\n[ok]: PSYNC2: Set #0 to replicate from #1\n[err]: PSYNC2 #3899 regression: kill x\n"
                  "[ok]: PSYNC2 #3899 regression: kill x\n[ok]: PSYNC2: consistent (x = 12)\n")
        self.assertEqual(redis.read(output, 1), {"PSYNC2: Set N to replicate from N": True, "PSYNC2 #3899 regression: kill x": False,
                                                 "PSYNC2: consistent (x = N)": True})

    def test_memcached(self):
        output = "t/a.t .. \n1..2\nok 1 - x\nnot ok 2 - y\nDubious, test returned 1\nFailed 1/2 subtests\nt/b.t .. \nok 1\nok\n"
        self.assertEqual(memcached.read(output, 1), {"t/a.t 1": True, "t/a.t 2": False, "t/a.t as a whole": False, "t/b.t 1": True,
                                                     "t/b.t as a whole": True})

    def test_sqlite(self):
        output = ("select1-1.1... Ok\nselect1-1.2...\n! select1-1.2 expected: [1]\n! select1-1.2 got:      [2]\nselect1-1.3... Ok\nselect1-1.4...\n"
                  "Time: select1.test 12 ms\nm-oom-transient.1... Ok\nm-oom-transient.2... Ok\nn-2.persistent.1...\n"
                  "! n-2.persistent.1 expected: [1]\nn-2.persistent.2... Ok\n")
        self.assertEqual(sqlite.read_quick(output, 1),
                         {"select1-1.1": True, "select1-1.2": False, "select1-1.3": True, "select1-1.4": False, "select1.test to its end": True,
                          "m-oom-transient": True, "n-2.persistent": False})
        self.assertEqual(sqlite.read_shell("7\n", None), {"line 0: 7": False})

    def test_postgresql(self):
        output = "initdb: done\ntest tablespace ... ok 1 ms\nparallel group (2 tests): char boolean\n     boolean  ... ok  96 ms\n     char  ... FAILED  12 ms\n"
        self.assertEqual(postgresql.read(output, 1), {"initdb": True, "tablespace": True, "boolean": True, "char": False})

    def test_python(self):
        output = ("0:00:01 load avg: 1.0 [1/4] test_a passed\n0:00:02 load avg: 1.0 [2/4/1] test_b failed (1 error)\n"
                  "0:00:02 load avg: 1.0 [3/4/1] test_c skipped\n0:00:03 [4/4/1] test_d crashed (Exit code -11)\n"
                  "2 tests failed:\n    test_b test_d\n")
        self.assertEqual(python_tests.read(output, 2), {"test_a": True, "test_b": False, "test_d": False})

    def test_stress_ng(self):
        self.assertEqual(stress_ng.read("vm")("stress-ng: info:  [1] successful run completed\n", 0), {"vm": True})
        self.assertEqual(stress_ng.read("vm")("stress-ng: fail:  [1] vm: bit error\n", 0), {"vm": False})
        self.assertEqual(stress_ng.read("vm")("", None), {"vm": False})


class Running(unittest.TestCase):
    def run_shell(self, script, seconds=30):
        with tempfile.TemporaryDirectory() as folder:
            piece = pieces.Piece("p", ["sh", "-c", script], lambda output, code: {"said": "right" in output, "ended well": code == 0}, seconds)
            kept = []
            pieces.run_mode([piece], "plain", "2M", "", folder, {}, kept.append)
            return kept[-1]["tests"]["p"]

    def test_what_passes(self):
        self.assertEqual(self.run_shell("echo right"), {"said": True, "ended well": True})

    def test_what_hangs_is_ended_and_has_failed(self):
        self.assertEqual(self.run_shell("echo right; sleep 1000 & sleep 1000", 0.5),
                         {"said": True, "ended well": False, "p: ended in time": False})

    def test_what_failed_is_tried_once_more(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertTrue(self.run_shell(f"echo right; mkdir {folder}/second 2>/dev/null && exit 1; exit 0")["ended well"])

    def test_a_piece_that_is_run_again_counts_once(self):
        before = {"tests": {"p": {"a": False}, "q": {"b": True}}, "demotions": {"p": 5, "q": 7}, "seconds": {"p": 1, "q": 2},
                  "states": {"p": "old", "q": "old"}, "far_bytes": 9, "share_far": 0.5}
        made = {"tests": {"p": {"a": True}}, "demotions": {"p": 6}, "seconds": {"p": 3}, "states": {"p": "new"}, "far_bytes": 8, "share_far": 0.9}
        self.assertEqual(pieces.together(before, made), {"tests": {"p": {"a": True}, "q": {"b": True}}, "demotions": {"p": 6, "q": 7}, "seconds": {"p": 3, "q": 2},
                                                         "states": {"p": "new", "q": "old"}, "far_bytes": 9, "share_far": 0.5})


class Report(unittest.TestCase):
    RESULTS = {"name": "x", "title": "X", "version": "1", "pieces": {"p": {"under_stress": False}, "q": {"under_stress": True}}, "modes": {
        "plain": {"tests": {"p": {"a": True, "b": True, "c": False}, "q": {"d": True}}, "seconds": {"p": 30, "q": 30}},
        "inline": {"tests": {"p": {"a": True, "c": True}}, "near": "2M", "share_far": 0.5, "far_bytes": 9, "demotions": {"p": 1200, "q": 34}, "seconds": {"p": 60, "q": 90},
                   "states": {"p": "abc"}}}}

    def test_lost_is_what_passes_plainly_and_not_under_pnode(self):
        self.assertEqual(report.lost_tests(self.RESULTS, "inline"), [("p", "b")])
        self.assertEqual(report.lost_tests(self.RESULTS, "inline", ["q"]), [])

    def test_table(self):
        self.assertIn("| X | 1 | inline | 3 | 2 | 1 | 2M | 50 % | 1,234 | 2.5 | abc |", report.document([self.RESULTS]))

    def test_says_which_pieces_were_not_run(self):
        self.assertEqual(report.pieces_not_run(self.RESULTS, "inline"), ([], ["q"]))
        self.assertEqual(report.pieces_not_run(self.RESULTS, "thread-stress"), (["p"], ["q"]))
        document = report.document([self.RESULTS])
        self.assertIn("- X, inline: of 2 pieces **not run yet**: q", document)
        self.assertIn("- X, inline-stress: of 2 pieces by choice: p, **not run yet**: q", document)
        self.assertIn("plainly took 1 minutes, and all rows together 2", document)

    def test_each_known_difference_has_a_reason(self):
        for pattern, reason in report.known_differences():
            self.assertTrue(pattern and reason, pattern)


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.realpath(__file__)))
    unittest.main()
