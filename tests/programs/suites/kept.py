"""The results that the repository keeps (docs/compatibility.jsonl): a run is mostly of a part, and what was run before, elsewhere, counts still.

A line is a JSON object. A suite's line has its title and its pieces, each with whether the modes with stress run it. Every other line is a
part: what came of some pieces of a suite in a mode. A run makes parts of one piece each; those of several are from before parts were kept,
and `null` is what they did not tell. `plain_minutes` are those of the same pieces plainly; `pages_out` and the rest are of this mode."""
import json
import os

from differences import differing_tests
from pieces import MODES, ended_in_time


def part_of(results, mode, piece):
    """What came of a piece, beside the same piece plainly."""
    made, plain = results["modes"][mode], results["modes"]["plain"]
    before, tests = plain["tests"][piece], made["tests"][piece]
    ended = tests.get(ended_in_time(piece), True)
    far = made["far"][piece]
    # Of what was cut off, most tests are missing: these are told by their number alone.
    differing = [test for _, test in differing_tests(results, mode, [piece]) if ended or test in tests]
    return {"suite": results["name"], "mode": mode, "pieces": [piece], "version": results["version"], "state": made["states"].get(piece) or "?",
            "ended": ended, "tests": len(before), "passed_plainly": sum(before.values()),
            "passed": sum(1 for test, good in before.items() if good and tests.get(test)), "near": made["near"],
            "far_bytes": far["bytes"], "share_far": round(far["share"], 3) if far["bytes"] else None, "pages_out": made["demotions"][piece],
            "minutes": round(made["seconds"][piece] / 60, 2), "plain_minutes": round(plain["seconds"][piece] / 60, 2),
            "differing": {test: "" for test in differing}}


def suite_of(results):
    return {"suite": results["name"], "title": results["title"], "pieces": {name: piece["under_stress"] for name, piece in results["pieces"].items()}}


def parts_of(results):
    """Of the pieces that were run plainly too: without that there is nothing to compare with."""
    plain = results["modes"].get("plain", {"tests": {}})["tests"]
    return [part_of(results, mode, piece) for mode in MODES[1:] for piece in results["modes"].get(mode, {"tests": {}})["tests"] if piece in plain]


def with_new(suites, parts, all_results):
    """(suites, parts) after runs. A part that was kept goes as a whole when one of its pieces was run anew, or is none any more."""
    suites = suites | {results["name"]: suite_of(results) for results in all_results}
    new = [part for results in all_results for part in parts_of(results)]
    run_anew = {(part["suite"], part["mode"], piece) for part in new for piece in part["pieces"]}

    def stays(part):
        return all(piece in suites[part["suite"]]["pieces"] and (part["suite"], part["mode"], piece) not in run_anew for piece in part["pieces"])

    return suites, [part for part in parts if stays(part)] + new


def in_order(suites, parts, names):
    """Suites as `names` has them, modes as they are run, pieces as the suite has them: so a run changes few lines."""
    def place(part):
        return MODES.index(part["mode"]), list(suites[part["suite"]]["pieces"]).index(part["pieces"][0])
    return [(suites[name], sorted((part for part in parts if part["suite"] == name), key=place)) for name in names if name in suites]


def read(name):
    """({suite: its line}, parts)"""
    if not os.path.exists(name):
        return {}, []
    with open(name, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {line["suite"]: line for line in lines if "title" in line}, [line for line in lines if "title" not in line]


def write(name, suites_in_order):
    with open(f"{name}.new", "w", encoding="utf-8") as file:
        for suite, parts in suites_in_order:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in (suite, *parts))
    os.replace(f"{name}.new", name)
