#!/usr/bin/env python3
"""What is read from a suite's output decides what counts as lost under pnode: so that is tested itself, and the report."""
import os
import tempfile
import unittest

import differences
import kept
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
        self.assertEqual(sqlite.read_quick("malloc3-x.pc=35.iFail=18-sql... Ok\nmalloc3-x.pc=35.iFail=19-sql...\nm-32.transient.57.integrity... Ok\n"
                                           "mallocC-1.1249.2... Ok\nmallocC-1.1250.2... Ok\n", 1),
                         {"malloc3-x.pc=N.iFail=N-sql": False, "m-32.transient.integrity": True, "mallocC-1.N.2": True})
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

    def test_what_ends_in_time_when_it_is_tried_once_more_has_ended(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.run_shell(f"echo right; mkdir {folder}/second 2>/dev/null && sleep 1000; exit 0", 0.5), {"said": True, "ended well": True})

    def test_what_was_far_is_told_of_each_piece(self):
        script = """echo '{"demotions": %d, "far_logical_bytes": %d, "near_bytes": 100}' >"$SUITE_STATS/1.json"; echo right"""
        run = [pieces.Piece(name, ["sh", "-c", script % numbers], lambda output, code: {"ended well": code == 0})
               for name, numbers in (("p", (7, 300)), ("q", (5, 100)), ("r", (0, 0)))]
        with tempfile.TemporaryDirectory() as folder:
            told = []
            pieces.run_mode(run, "inline", "2M", "/bin/true", folder, {}, told.append)
        self.assertEqual(told[-1]["demotions"], {"p": 7, "q": 5, "r": 0})
        self.assertEqual(told[-1]["far"], {"p": {"bytes": 300, "share": 0.75}, "q": {"bytes": 100, "share": 0.5}, "r": {"bytes": 0, "share": 0}})

    def test_a_piece_that_is_run_again_counts_once(self):
        before = {"tests": {"p": {"a": False}, "q": {"b": True}}, "demotions": {"p": 5, "q": 7}, "seconds": {"p": 1, "q": 2},
                  "states": {"p": "old", "q": "old"}, "far": {"p": "little", "q": "half"}}
        made = {"tests": {"p": {"a": True}}, "demotions": {"p": 6}, "seconds": {"p": 3}, "states": {"p": "new"}, "far": {"p": "much"}}
        self.assertEqual(pieces.together(before, made), {"tests": {"p": {"a": True}, "q": {"b": True}}, "demotions": {"p": 6, "q": 7}, "seconds": {"p": 3, "q": 2},
                                                         "states": {"p": "new", "q": "old"}, "far": {"p": "much", "q": "half"}})


# What a folder has after a run of three pieces of four: plainly p, q and r, with the inline engine p and q, with the thread engine r.
RESULTS = {"name": "x", "title": "X", "version": "1", "pieces": {"p": {"under_stress": False}, "q": {"under_stress": True}, "r": {"under_stress": True},
                                                                 "s": {"under_stress": True}}, "modes": {
    "plain": {"tests": {"p": {"a": True, "b": True, "c": False}, "q": {"d": True}, "r": {"e": True, "f": True, "g": True}}, "seconds": {"p": 30, "q": 15, "r": 6}},
    "inline": {"tests": {"p": {"a": True, "c": True}, "q": {"d": True}}, "near": "2M", "far": {"p": {"bytes": 9, "share": 0.5}, "q": {"bytes": 5, "share": 0.9}},
               "demotions": {"p": 1200, "q": 34}, "seconds": {"p": 60, "q": 90}, "states": {"p": "abc", "q": "abc"}},
    "thread": {"tests": {"r": {"e": True, "f": False, "r: ended in time": False}}, "near": "2M", "far": {"r": {"bytes": 0, "share": 0}}, "demotions": {"r": 0},
               "seconds": {"r": 800}, "states": {"r": ""}}}}


class Kept(unittest.TestCase):
    SUITES, NEW = kept.with_new({}, [], [RESULTS])
    BEFORE = {"suite": "x", "mode": "inline", "pieces": ["p", "s"], "ended": True, "state": "old"}

    def test_lost_is_what_passes_plainly_and_not_under_pnode(self):
        self.assertEqual(differences.lost_tests(RESULTS, "inline"), [("p", "b")])
        self.assertEqual(differences.lost_tests(RESULTS, "inline", ["q"]), [])

    def test_a_part_is_a_piece_beside_the_same_plainly(self):
        self.assertEqual(self.NEW[0], {"suite": "x", "mode": "inline", "pieces": ["p"], "version": "1", "state": "abc", "ended": True, "tests": 3,
                                       "passed_plainly": 2, "passed": 1, "near": "2M", "far_bytes": 9, "share_far": 0.5, "pages_out": 1200, "minutes": 1.0,
                                       "plain_minutes": 0.5, "differing": {"b": ""}})

    def test_of_what_was_cut_off_only_what_failed_differs(self):
        cut_off = self.NEW[2]
        self.assertEqual((cut_off["ended"], cut_off["passed"], cut_off["passed_plainly"], cut_off["share_far"]), (False, 1, 3, None))
        self.assertEqual(list(cut_off["differing"]), ["f"])

    def test_without_a_plain_run_there_is_no_part(self):
        modes = RESULTS["modes"] | {"plain": {"tests": {"p": {"a": True}}, "seconds": {"p": 1}}}
        self.assertEqual([part["pieces"] for part in kept.parts_of(RESULTS | {"modes": modes})], [["p"]])
        self.assertEqual(kept.parts_of(RESULTS | {"modes": {"inline": RESULTS["modes"]["inline"]}}), [])

    def test_what_was_not_run_anew_stays(self):
        stays = [self.BEFORE | {"pieces": ["s"]}, self.BEFORE | {"mode": "thread", "pieces": ["p", "s"]}]
        self.assertEqual(kept.with_new(self.SUITES, stays, [RESULTS])[1], stays + self.NEW)
        self.assertEqual(kept.with_new(self.SUITES, stays, []), (self.SUITES, stays))

    def test_what_was_run_anew_goes_and_all_that_was_told_with_it(self):
        self.assertEqual(kept.with_new(self.SUITES, [self.BEFORE, self.BEFORE | {"pieces": ["q"]}], [RESULTS])[1], self.NEW)

    def test_what_is_a_piece_no_more_goes(self):
        self.assertEqual(kept.with_new(self.SUITES, [self.BEFORE | {"pieces": ["s", "t"]}], [])[1], [])

    def test_is_read_as_it_was_written_in_order(self):
        with tempfile.TemporaryDirectory() as folder:
            name = f"{folder}/kept.jsonl"
            self.assertEqual(kept.read(name), ({}, []))
            kept.write(name, kept.in_order(self.SUITES, self.NEW[::-1], ["none", "x"]))
            self.assertEqual(kept.read(name), (self.SUITES, self.NEW))


class Report(unittest.TestCase):
    def document_of(self, *before):
        suites, parts = kept.with_new({}, [], [RESULTS])
        return report.document(kept.in_order(suites, [*parts, *before], ["x"]))

    def test_table(self):
        self.assertIn("| X | 1 | inline | 4 | 3 | 2 | 2M | 50 % | 1,234 | 2.5 | 0.8 | abc |\n", self.document_of())
        self.assertIn("all rows together took 2.", self.document_of())

    def test_table_has_what_was_kept_beside_what_is_new(self):
        before = {"suite": "x", "mode": "inline", "pieces": ["s"], "version": "0", "state": "old", "ended": True, "tests": 10, "passed_plainly": 9, "passed": 9,
                  "near": "2M", "far_bytes": None, "share_far": 0.99, "pages_out": None, "minutes": None, "plain_minutes": None, "differing": {"z": "it is so"}}
        document = self.document_of(before)
        self.assertIn("| X | 0, 1 | inline | 14 | 12 | 11 | 2M | 50 % | 1,234 | 2.5 | not told | abc, old |\n", document)
        self.assertIn("- X, inline: z: it is so\n", document)
        self.assertIn("| X | 0 | thread | 10 | 9 | 9 | 2M | 99 % | not told | not told | not told | old |\n", self.document_of(before | {"mode": "thread"}))

    def test_says_which_pieces_were_not_run(self):
        document = self.document_of()
        self.assertIn("- X, inline: of 4 pieces **not run yet**: r; s\n", document)
        self.assertIn("- X, inline-stress: of 4 pieces by choice: p, **not run yet**: q; r; s\n", document)

    def test_says_what_was_cut_off_and_does_not_count_it(self):
        document = self.document_of()
        self.assertIn("- X, thread, \"r\" (?): 1 of 3 passed in 13 minutes\n", document)
        self.assertNotIn("| X | 1 | thread |", document)
        told_little = {"suite": "x", "mode": "thread", "pieces": ["s"], "state": "old", "ended": False, "passed": 7, "passed_plainly": None, "minutes": None,
                       "note": "It hung", "differing": {}}
        self.assertIn("- X, thread, \"s\" (old): 7 passed. It hung\n", self.document_of(told_little))

    def test_says_what_differs(self):
        self.assertIn("- X, inline: b: **open**\n", self.document_of())

    def test_is_made_of_what_the_repository_keeps(self):
        documents = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../../docs")
        with open(f"{documents}/compatibility.md", encoding="utf-8") as file:
            written = file.read()
        suites, parts = kept.read(f"{documents}/compatibility.jsonl")
        self.assertEqual(report.document(kept.in_order(suites, parts, list(suites))), written, "`run.py report` writes both")

    def test_each_known_difference_has_a_reason(self):
        for pattern, reason in differences.known_differences():
            self.assertTrue(pattern and reason, pattern)


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.realpath(__file__)))
    unittest.main()
