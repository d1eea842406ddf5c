"""docs/compatibility.md, made of the parts that are kept (kept.py): all of it, so that a run leaves nothing to mend by hand."""
from differences import reason_for
from pieces import MODES


def told(values):
    """The sum of what parts told; None where none did."""
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def share_far(parts):
    """Of the part in which a process had the most far memory."""
    known = [part for part in parts if part["share_far"] is not None]
    return f"{100 * max(known, key=lambda part: part['far_bytes'] or 0)['share_far']:.0f} %" if known else "not told"


def row(suite, mode, parts):
    def words(field):
        return ", ".join(sorted({part[field] for part in parts}))

    def number(field, form):
        value = told(part[field] for part in parts)
        return "not told" if value is None else format(value, form)

    plain_minutes = number("plain_minutes", ".1f") if all(part["plain_minutes"] is not None for part in parts) else "not told"
    return (f"| {suite['title']} | {words('version')} | {mode} | {number('tests', 'd')} | {number('passed_plainly', 'd')} | {number('passed', 'd')} | "
            f"{words('near')} | {share_far(parts)} | {number('pages_out', ',')} | {number('minutes', '.1f')} | {plain_minutes} | {words('state')} |")


def rows(suite, parts):
    of_mode = {mode: [part for part in parts if part["mode"] == mode and part["ended"]] for mode in MODES}
    return [row(suite, mode, found) for mode, found in of_mode.items() if found]


def pieces_not_run(suite, parts, mode):
    """(by choice, for want of time): names; by choice where the mode is too slow for them (pieces.Piece.under_stress)."""
    run = {piece for part in parts if part["mode"] == mode for piece in part["pieces"]}
    missing = [name for name in suite["pieces"] if name not in run]
    by_choice = [name for name in missing if mode.endswith("-stress") and not suite["pieces"][name]]
    return by_choice, [name for name in missing if name not in by_choice]


def what_was_left_out(suite, parts):
    """A line for each mode in which not every piece was run."""
    lines = []
    for mode in MODES[1:]:
        count = len(suite["pieces"])
        words = [f"{why}: " + ("; ".join(names) if len(names) < count else "all") for why, names in
                 zip(("by choice", "**not run yet**"), pieces_not_run(suite, parts, mode)) if names]
        if words:
            lines.append(f"- {suite['title']}, {mode}: of {count} pieces {', '.join(words)}")
    return lines


def what_was_cut_off(suite, parts):
    lines = []
    for part in parts:
        if not part["ended"]:
            of = "" if part["passed_plainly"] is None else f" of {part['passed_plainly']}"
            minutes = "" if part["minutes"] is None else f" in {part['minutes']:.0f} minutes"
            note = f". {part['note']}" if "note" in part else ""
            lines.append(f"- {suite['title']}, {part['mode']}, \"{'; '.join(part['pieces'])}\" ({part['state']}): {part['passed']}{of} passed{minutes}{note}")
    return lines


def what_differs(suite, parts):
    return [f"- {suite['title']}, {part['mode']}: {test}: {reason or reason_for(suite['suite'], part['mode'], test) or '**open**'}"
            for part in parts for test, reason in part["differing"].items()]


HEAD = """\
# Programs under their own tests

Made by `tests/programs/suites/run.py report` of `compatibility.jsonl`, which keeps what was run, wherever and whenever that was, and of what
this machine has run since; `./quickstart test --full` runs all of it.
Each program runs its own tests plainly first; what fails then, fails by itself and does not count. Then the same under `pnode run` with
each engine, and with `--stress`, which demotes at every chance. *Passed* counts, of the tests that passed plainly, those that pass under pnode too; suites that look at the clock get
a second chance for what failed. *Share far* is the largest part of its heap that the process with the most far memory had away at once; *pages out*
counts demotions over all processes; forked children count too where the suite says so (`--stats` with %p: PostgreSQL's backends, stress-ng's
stressors, git), each beginning with the little that its parent had counted when it made it. *Minutes* are those of this row's pieces, second tries among them, on a machine
with two cores that may be busy with other work, and *plainly* those of the same pieces without pnode; all rows together took {minutes:.0f}.
*State* is the commit that last changed pnode's sources when the row's pieces were run; with a plus they were changed since.

| program | version | mode | tests | passed plainly | passed under pnode | near limit | share far | pages out | minutes | plainly | state |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
LEFT_OUT = """\
Under stress a page is near for a moment only: what goes over its memory in order takes minutes then, what hashes takes hours, so such pieces
are left out there by choice.

"""
CUT_OFF = "Ended by the clock of these tests, not by themselves: not in the table. Of the tests that pass plainly, until then:\n\n"


def section(title, suites, lines_of, words=""):
    lines = [line for suite, parts in suites for line in lines_of(suite, parts)]
    return f"\n\n## {title}\n\n{words}" + "\n".join(lines) if lines else ""


def document(suites):
    """`suites`: [(a suite's line, its parts)], in order."""
    minutes = told(part["minutes"] for _, parts in suites for part in parts if part["ended"]) or 0
    table = [line for suite, parts in suites for line in rows(suite, parts)]
    return (HEAD.format(minutes=minutes) + "\n".join(table) + section("What was left out", suites, what_was_left_out, LEFT_OUT) +
            section("What was begun and did not reach its end", suites, what_was_cut_off, CUT_OFF) +
            section("What differs, and why", suites, what_differs) + "\n")
