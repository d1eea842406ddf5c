"""Which tests were lost under pnode, and which of these are known, with their reasons."""
import fnmatch
import os

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


def reason_for(suite, mode, test):
    name = f"{suite} {mode} {test}"
    return next((reason for pattern, reason in known_differences() if fnmatch.fnmatchcase(name, pattern)), "")


def differing_tests(results, mode, pieces=None):
    """(piece, test) that pass plainly and not in this mode."""
    if mode == "plain":
        return []
    plain, under = (results["modes"].get(each, {"tests": {}})["tests"] for each in ("plain", mode))
    return [(piece, test) for piece, tests in under.items() if pieces is None or piece in pieces
            for test in plain.get(piece, {}) if plain[piece][test] and not tests.get(test)]


def lost_tests(results, mode, pieces=None):
    return [(piece, test) for piece, test in differing_tests(results, mode, pieces) if not reason_for(results["name"], mode, test)]
