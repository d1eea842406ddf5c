#!/usr/bin/env python3
"""summarize_test.py SUMMARIZE: each kind of result is counted as what it is."""
import os
import subprocess
import sys
import tempfile

CASES = {
    "passes": ('<testcase name="A.Works" status="run"><system-out>fine</system-out></testcase>', "1 passed, 0 failed, 0 skipped"),
    "fails": ('<testcase name="A.Breaks" status="fail"><failure message=""/><system-out>why it broke</system-out></testcase>',
              "0 passed, 1 failed, 0 skipped"),
    "skips with leave": ('<testcase name="Vm.Boots" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
                         '<system-out>x.cpp:3: Skipped\nno kernel image\n</system-out></testcase>',
                         "0 passed, 0 failed, 1 skipped"),
    "skips without leave": ('<testcase name="A.Skips" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
                            '<system-out>x.cpp:3: Skipped\nno wish\n</system-out></testcase>', "0 passed, 1 failed, 0 skipped"),
    "was not built": ('<testcase name="Vm.NotBuilt" status="notrun"><skipped message="Unable to find executable"/></testcase>',
                      "0 passed, 1 failed, 0 skipped"),
    "is empty": ("", "0 passed, 1 failed, 0 skipped"),
}
MUST_SAY = {"fails": "why it broke", "skips with leave": "no kernel image", "skips without leave": "no wish"}


def summarize(script, folder, text):
    report = os.path.join(folder, "report.xml")
    if text is None:
        report = os.path.join(folder, "absent.xml")
    else:
        with open(report, "w", encoding="utf-8") as file:
            file.write(f'<testsuite name="t">{text}</testsuite>')
    allowed = os.path.join(folder, "allowed.txt")
    with open(allowed, "w", encoding="utf-8") as file:
        file.write("# a comment\n\nVm.*: needs a kernel image\n")
    return subprocess.run([sys.executable, script, allowed, report], capture_output=True, text=True, check=False)


def expect(name, done, last_line):
    lines = done.stdout.splitlines()
    right = bool(lines) and lines[-1] == last_line and (done.returncode == 0) == (" 0 failed" in last_line)
    right = right and MUST_SAY.get(name, "") in done.stdout
    if not right:
        print(f"a test that {name}: exit code {done.returncode}, expected '{last_line}', got:\n{done.stdout}{done.stderr}")
    return right


def main():
    with tempfile.TemporaryDirectory() as folder:
        right = [expect(name, summarize(sys.argv[1], folder, text), line) for name, (text, line) in CASES.items()]
        right.append(expect("has no report", summarize(sys.argv[1], folder, None), "0 passed, 1 failed, 0 skipped"))
    sys.exit(0 if all(right) else 1)


main()
