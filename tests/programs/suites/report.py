"""What the results say: which tests were lost under pnode, and docs/compatibility.md: all of it, so that a run leaves nothing to mend by hand."""
import fnmatch
import os

from pieces import MODES

KNOWN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "known_differences.txt")


def known_differences():
    """[(pattern of "suite mode test", reason)]"""
    found = []
    with open(KNOWN, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                pattern, _, reason = line.strip().partition(" | ")
                found.append((pattern.strip(), reason.strip()))
    return found


def reason_for(results, mode, test):
    name = f"{results['name']} {mode} {test}"
    return next((reason for pattern, reason in known_differences() if fnmatch.fnmatchcase(name, pattern)), "")


def differing_tests(results, mode, pieces=None):
    """(piece, test) that pass plainly and not in this mode."""
    if mode == "plain":
        return []
    plain, under = (results["modes"].get(each, {"tests": {}})["tests"] for each in ("plain", mode))
    return [(piece, test) for piece, tests in under.items() if pieces is None or piece in pieces
            for test in plain.get(piece, {}) if plain[piece][test] and not tests.get(test)]


def lost_tests(results, mode, pieces=None):
    return [(piece, test) for piece, test in differing_tests(results, mode, pieces) if not reason_for(results, mode, test)]


def row(results, mode):
    made = results["modes"][mode]
    plain = results["modes"]["plain"]["tests"]
    common = {piece: tests for piece, tests in made["tests"].items() if piece in plain}
    run = sum(len(plain[piece]) for piece in common)
    passed_plain = sum(sum(plain[piece].values()) for piece in common)
    passed = sum(1 for piece, tests in common.items() for test, good in plain[piece].items() if good and tests.get(test))
    minutes = sum(made["seconds"].values()) / 60
    share = f"{100 * made['share_far']:.0f} %" if made["far_bytes"] else "not told"
    states = sorted({state or "?" for state in made.get("states", {}).values()}) or ["?"]
    return (f"| {results['title']} | {results['version']} | {mode} | {run} | {passed_plain} | {passed} | {made['near']} | {share} | "
            f"{sum(made['demotions'].values()):,} | {minutes:.1f} | {', '.join(states)} |")


def pieces_not_run(results, mode):
    """(by choice, for want of time): names; by choice where the mode is too slow for them (pieces.Piece.under_stress)."""
    missing = [name for name in results.get("pieces", {}) if name not in results["modes"].get(mode, {"tests": {}})["tests"]]
    by_choice = [name for name in missing if mode.endswith("-stress") and not results["pieces"][name]["under_stress"]]
    return by_choice, [name for name in missing if name not in by_choice]


def what_was_left_out(results):
    """A line for each mode in which not every piece was run."""
    lines = []
    for mode in MODES[1:]:
        by_choice, not_yet = pieces_not_run(results, mode)
        count = len(results.get("pieces", {}))
        words = [f"{why}: " + ("; ".join(names) if len(names) < count else "all") for why, names in
                 (("by choice", by_choice), ("**not run yet**", not_yet)) if names]
        if words:
            lines.append(f"- {results['title']}, {mode}: of {count} pieces {', '.join(words)}")
    return lines


def minutes_of(all_results, modes):
    return sum(sum(made["seconds"].values()) for results in all_results for mode, made in results["modes"].items() if mode in modes) / 60


HEAD = """\
# Programs under their own tests

Made by `tests/programs/suites/run.py report` of what was run last, which may be a part; `./quickstart test --full` runs all of it.
Each program runs its own tests plainly first; what fails then, fails by itself and does not count. Then the same under `pnode run` with
each engine, and with `--stress`, which demotes at every chance. *Passed* counts, of the tests that passed plainly, those that pass under pnode too; suites that look at the clock get
a second chance for what failed. *Share far* is the largest part of its heap that the process with the most far memory had away at once; *pages out*
counts demotions over all processes; forked children count too where the suite says so (`--stats` with %p: PostgreSQL's backends, stress-ng's
stressors, git), each beginning with the little that its parent had counted when it made it. *Minutes* are those of this row's pieces, on a machine
with two cores that may be busy with other work; what was run plainly took {plain:.0f} minutes, and all rows together {under:.0f}. *State* is the commit that
last changed pnode's sources when the row's pieces were run; with a plus they were changed since.

| program | version | mode | tests | passed plainly | passed under pnode | near limit | share far | pages out | minutes | state |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def section(title, lines, words=""):
    return f"\n\n## {title}\n\n{words}" + "\n".join(lines) if lines else ""


LEFT_OUT = """\
Under stress a page is near for a moment only: what goes over its memory in order takes minutes then, what hashes takes hours, so such pieces
are left out there by choice.

"""


def document(all_results):
    lines = [row(results, mode) for results in all_results for mode in MODES
             if mode != "plain" and mode in results["modes"] and "plain" in results["modes"]]
    differences = [f"- {results['title']}, {mode}: {test}: {reason_for(results, mode, test) or '**open**'}"
                   for results in all_results for mode in results["modes"] for _, test in differing_tests(results, mode)]
    left_out = [line for results in all_results for line in what_was_left_out(results)]
    head = HEAD.format(plain=minutes_of(all_results, ("plain",)), under=minutes_of(all_results, MODES[1:]))
    return (head + "\n".join(lines) + section("What was left out", left_out, LEFT_OUT) + section("What differs, and why", differences) + "\n")
