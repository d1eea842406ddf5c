#!/usr/bin/env python3
"""run.py run SUITE --pnode COMMAND --folder FOLDER [--modes MODE,...] [--pieces WORD] [--once]
run.py report --folder FOLDER --kept FILE --document FILE

Runs a program's own tests plainly and under `pnode run`, in the modes plain, inline, thread, inline-stress, thread-stress.
A test that passes plainly must pass in each: else the exit code is 1. FOLDER keeps what was fetched and built, the logs and the
results. `report` puts these in the place of what docs/compatibility.jsonl kept of the same pieces, and makes docs/compatibility.md of all."""
import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys

import packages
import differences
import kept
import memcached
import perl_tests
import postgresql
import python_tests
import redis
import report
import same_bytes
import sqlite
import stress_ng
from pieces import MODES, run_mode, together

SUITES = {suite.name: suite for module in (redis, memcached, sqlite, postgresql, stress_ng, same_bytes, python_tests, perl_tests) for suite in module.SUITES}


def read_json(name):
    if not os.path.exists(name):
        return {}
    with open(name, encoding="utf-8") as file:
        return json.load(file)


def write_json(name, value):
    with open(f"{name}.new", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
    os.replace(f"{name}.new", name)


def plain_tests(results):
    return results["modes"].get("plain", {}).get("tests", {})


def state_of_pnode():
    """The commit that last changed what a program under pnode runs; with a plus where the sources differ from it. "": no git here."""
    here = os.path.dirname(os.path.realpath(__file__))
    sources = [f":/{folder}" for folder in ("runtime", "preload", "compress", "cxl", "tools")]

    def git(*command):
        done = subprocess.run(["git", "-C", here, *command, "--", *sources], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("log", "-1", "--format=%h")
    return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "")


def run(arguments):
    suite = SUITES[arguments.suite]
    folder = os.path.join(os.path.realpath(arguments.folder), suite.name)
    os.makedirs(folder, exist_ok=True)
    packages.require(suite.packages)
    version = suite.prepare(folder)
    every_piece = suite.pieces(folder)
    pieces = [piece for piece in every_piece if arguments.pieces in piece.name]
    if arguments.once:
        pieces = [dataclasses.replace(piece, may_fail_at_times=False) for piece in pieces]
    results = read_json(f"{folder}/results.json") or {"modes": {}}
    results |= {"name": suite.name, "title": suite.title, "version": version,
                "pieces": {piece.name: {"under_stress": piece.under_stress} for piece in every_piece}}
    state = state_of_pnode()
    lost = 0
    for mode in arguments.modes.split(","):
        print(f"{suite.name} {version} {mode}", flush=True)
        before = results["modes"].get(mode, {"tests": {}})

        def keep(made, mode=mode, before=before):
            results["modes"][mode] = together(before, made | {"states": dict.fromkeys(made["tests"], state)})
            write_json(f"{folder}/results.json", results)

        chosen = [piece for piece in pieces if piece.under_stress or not mode.endswith("-stress")]
        run_mode(chosen, mode, suite.near, os.path.realpath(arguments.pnode), folder, plain_tests(results), keep)
        failed = differences.lost_tests(results, mode, [piece.name for piece in chosen])
        for piece, test in failed:
            print(f"LOST {suite.name} {mode}: {piece}: {test}", flush=True)
        lost += len(failed)
    return 1 if lost else 0


def write_report(folder, kept_name, document_name):
    found = [read_json(f"{folder}/{name}/results.json") for name in SUITES]
    suites, parts = kept.with_new(*kept.read(kept_name), [results for results in found if results])
    in_order = kept.in_order(suites, parts, list(SUITES))
    kept.write(kept_name, in_order)
    with open(document_name, "w", encoding="utf-8") as file:
        file.write(report.document(in_order))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("suite", nargs="?", choices=SUITES)
    parser.add_argument("--pnode")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--kept", help="where the results are kept")
    parser.add_argument("--document", help="where the report goes")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--pieces", default="", help="only those with this word in their name")
    parser.add_argument("--once", action="store_true", help="what failed is not run once more")
    arguments = parser.parse_args()
    if arguments.what == "report":
        write_report(arguments.folder, arguments.kept, arguments.document)
        return 0
    return run(arguments)


sys.exit(main())
