#!/usr/bin/env python3
"""summarize.py ALLOWED_SKIPS REPORT...: sums up ctest's JUnit reports.

Prints the output of each failed test, each skip with its reason, and as the last line exactly
"N passed, N failed, N skipped". A skip that ALLOWED_SKIPS does not name counts as failed, and so does a report that is
missing or empty: whatever made it so, nothing was tested. Exits with 1 when anything failed.
"""
import fnmatch
import os
import re
import sys
import xml.etree.ElementTree as ElementTree


def read_allowed(path):
    """The patterns, in the file's order, with their reasons."""
    allowed = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.strip()
            if line and not line.startswith("#"):
                pattern, separator, reason = line.partition(": ")
                if not separator or not reason.strip():
                    sys.exit(f"{path}: '{line}' is not 'pattern: reason'")
                allowed[pattern.strip()] = reason.strip()
    return allowed


def skip_reason(output):
    """What the test said when it skipped: the line after GoogleTest's 'Skipped', else the last line there is."""
    said = re.search(r": Skipped\s*\n(.+)", output)
    if said:
        return said.group(1).strip()
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


class Summary:
    def __init__(self, allowed):
        self.allowed = allowed
        self.passed = self.failed = self.skipped = 0

    def fail(self, where, name, output):
        self.failed += 1
        print(f"--- FAILED {where}: {name}\n{output.rstrip()}\n---")

    def add_case(self, where, case):
        name = case.get("name")
        output = case.findtext("system-out") or ""
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            self.fail(where, name, output)
        elif skip is None:
            self.passed += 1
        elif "SKIP" not in (skip.get("message") or ""):  # ctest says the same of tests that it could not start
            self.fail(where, name, f"not run: {skip.get('message')}\n{output}")
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in self.allowed):
            self.skipped += 1
            print(f"skipped {where}: {name}: {skip_reason(output)}")
        else:
            self.fail(where, name, f"skipped, and not on the list of allowed skips: {skip_reason(output)}")

    def add_report(self, path):
        where = os.path.splitext(os.path.basename(path))[0]
        try:
            cases = ElementTree.parse(path).getroot().findall(".//testcase")
        except (OSError, ElementTree.ParseError) as error:
            self.fail(where, "(no report)", str(error))
            return
        if not cases:
            self.fail(where, "(no test)", "the report has no test in it")
        for case in cases:
            self.add_case(where, case)


def main():
    summary = Summary(read_allowed(sys.argv[1]))
    for path in sys.argv[2:]:
        summary.add_report(path)
    print(f"{summary.passed} passed, {summary.failed} failed, {summary.skipped} skipped")
    sys.exit(1 if summary.failed else 0)


main()
