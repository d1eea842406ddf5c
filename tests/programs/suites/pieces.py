"""Runs the pieces of a suite in one mode and keeps what became of each test."""
import dataclasses
import glob
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

ENGINES = ("inline", "thread")
MODES = ("plain", *ENGINES, *(f"{engine}-stress" for engine in ENGINES))


@dataclasses.dataclass
class Piece:
    """A command that runs some tests and ends in bounded time."""
    name: str
    command: list
    read: Callable  # (output, exit code) -> {test: passed?}
    seconds_max: int = 300
    folder: str = ""
    environment: dict = dataclasses.field(default_factory=dict)
    may_fail_at_times: bool = True  # a suite that looks at the clock: what failed is run once more
    under_stress: bool = True  # whether the modes with --stress run it too, which takes some twenty times as long


def environment_of(mode, near, pnode):
    """What under.sh and the preload library are told."""
    settings = {"SUITE_PNODE": ""}
    if mode != "plain":
        settings = {"SUITE_PNODE": pnode, "PNODE_ENGINE": mode.split("-")[0], "PNODE_NEAR": near, "PNODE_ACTIVATION": "1M",
                    "PNODE_STATS_EVERY": "500"}
    if mode.endswith("-stress"):
        settings["PNODE_STRESS"] = "1"
    return settings


class FarWatch:
    """Looks every half second at the statistics that a piece's processes under pnode write: the largest share that was far at once in
    the process with the most far memory, and how many pages left memory in all."""

    def __init__(self, folder):
        self.folder = folder
        self.share = 0.0
        self.largest_far = 0
        self.demotions = {}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)  # a server that refuses root runs as somebody else, and writes here
        for old in glob.glob(f"{folder}/*.json"):
            os.remove(old)
        self.thread.start()

    def look(self):
        for name in glob.glob(f"{self.folder}/*.json"):
            try:
                with open(name, encoding="utf-8") as file:
                    told = json.load(file)
            except (OSError, ValueError):
                continue
            self.demotions[name] = told["demotions"]
            if told["far_logical_bytes"] > self.largest_far:
                self.largest_far = told["far_logical_bytes"]
                self.share = self.largest_far / (self.largest_far + told["near_bytes"])

    def watch(self):
        while not self.done.wait(0.5):
            self.look()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.look()

    def far(self):
        return {"bytes": self.largest_far, "share": self.share}

    def pages_out(self):
        return sum(self.demotions.values())


def processes_of(session):
    """Every live process of a session: a suite's servers make groups of their own, but stay in it unless they become daemons."""
    found = []
    for entry in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(entry, encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(session) and fields[0] != "Z":
            found.append(int(entry.split("/")[2]))
    return found


def end_session(session):
    for process in processes_of(session):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def run_command(piece, environment, log):
    """The exit code; None when it had to be ended. Whatever it left running in its session is ended too."""
    with open(log, "wb") as output:
        process = subprocess.Popen(piece.command, cwd=piece.folder or None, env={**os.environ, **piece.environment, **environment},
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(piece.seconds_max)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also when this runner is told to end
            end_session(process.pid)
            process.wait()
    return code


def ended_in_time(name):
    """The test that a piece fails which has to be ended."""
    return f"{name}: ended in time"


def run_once(piece, environment, log):
    began = time.monotonic()
    code = run_command(piece, environment, log)
    with open(log, encoding="utf-8", errors="replace") as file:
        output = file.read()
    tests = piece.read(output, code)
    if code is None:
        tests[ended_in_time(piece.name)] = False
    for complaint in sorted({line for line in output.splitlines() if line.startswith("pnode: ")})[:5]:
        print(f"    {complaint}")
    failed = [test for test, passed in tests.items() if not passed]
    print(f"  {piece.name}: {len(tests) - len(failed)} of {len(tests)} in {time.monotonic() - began:.0f} s", flush=True)
    for test in failed[:20]:
        print(f"    failed: {test}", flush=True)
    return tests


def run_piece(piece, environment, log, expected):
    """`expected`: the tests that must pass; what does not is tried once more, if the suite looks at the clock."""
    tests = run_once(piece, environment, log)
    missing = [test for test in expected if not tests.get(test)] if expected else [test for test, passed in tests.items() if not passed]
    if missing and piece.may_fail_at_times:
        os.replace(log, f"{log}.first")
        tests.pop(ended_in_time(piece.name), None)  # that is the second run's to say
        for test, passed in run_once(piece, environment, log).items():
            tests[test] = passed or tests.get(test, False)
    return tests


def together(before, made):
    """What pieces that were not run this time said before counts still."""
    return made | {field: before.get(field, {}) | made[field] for field in ("tests", "far", "demotions", "seconds", "states")}


def run_mode(pieces, mode, near, pnode, folder, baseline, keep):
    """Runs every piece; after each, `keep` gets {"near": limit, "tests": {piece: {test: passed}}, "far": {piece: the most at once},
    "demotions": {piece: count}, "seconds": {piece: count}} of all so far."""
    logs = f"{folder}/{mode}"
    os.makedirs(logs, exist_ok=True)
    made = {"near": near if mode != "plain" else "", "tests": {}, "far": {}, "demotions": {}, "seconds": {}}
    for piece in pieces:
        expected = [test for test, passed in baseline.get(piece.name, {}).items() if passed]
        with FarWatch(f"{logs}/statistics") as watch:
            began = time.monotonic()
            environment = environment_of(mode, near, pnode) | {"SUITE_STATS": watch.folder}
            made["tests"][piece.name] = run_piece(piece, environment, f"{logs}/{piece.name.replace('/', '_')}.log", expected)
        made["far"][piece.name] = watch.far()
        made["demotions"][piece.name] = watch.pages_out()
        made["seconds"][piece.name] = round(time.monotonic() - began)
        keep(made)
