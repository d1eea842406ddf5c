#!/usr/bin/env python3
"""check.py format|words|tidy|tidy_deep SOURCE_FOLDER [BUILD_FOLDER]: what the tests ask of the sources as text."""
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile

CODE = (".c", ".cpp", ".h", ".hpp")
TIDY_ROOMS = ("compress", "cxl", "runtime", "preload", "tools")

# What only the writer's machine or moment explains. Written so that this file does not find itself.
FORBIDDEN = {
    r"/(wo[r]k|ho[m]e|ro[o]t)/": "a path of one machine",
    r"\b(TO[D]O|FIX[M]E|XX[X])\b": "unfinished business",
    r"\bissu[e] #?\d": "a number that means nothing here",
    r"[ \t]+$": "blanks at the end of a line",
}


def tracked_files(root):
    """Names relative to root: git's, or, in an unpacked archive, all but what was built."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().split("\0")
        return [name for name in names if name and os.path.isfile(os.path.join(root, name))]
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in ("build", ".git")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return found


def check_format(root):
    names = [name for name in tracked_files(root) if name.endswith(CODE)]
    command = ["clang-format", "--dry-run", "-Werror", *names]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    for name in dict.fromkeys(re.findall(r"^([^:\s]+):\d+:\d+: error", done.stderr, re.MULTILINE)):
        print(f"clang-format -i {name}")
    return done.returncode


def check_words(root):
    found = 0
    for name in tracked_files(root):
        with open(os.path.join(root, name), "rb") as file:
            raw = file.read()
        if b"\0" in raw or name == "LICENSE":
            continue
        for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
            for pattern, meaning in FORBIDDEN.items():
                if re.search(pattern, line):
                    print(f"{name}:{number}: {meaning}: {line.strip()}")
                    found += 1
    return 1 if found else 0


def tidy_one(root, build, name, analyzer_mode):
    # gcc knows warnings that clang does not.
    arguments = ["-Wno-unknown-warning-option", "-Xclang", "-analyzer-config", "-Xclang", f"mode={analyzer_mode}"]
    command = ["clang-tidy", "-p", build, "--quiet", *(f"--extra-arg={argument}" for argument in arguments), name]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def commands_of_sources(root, build):
    """The first command of each source of TIDY_ROOMS; tests compile some of them once more, in another way."""
    rooms = tuple(os.path.join(os.path.realpath(root), room) + os.sep for room in TIDY_ROOMS)
    commands = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            name = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
            if name.startswith(rooms) and name.endswith(CODE):
                commands.setdefault(name, entry)
    return commands


def check_tidy(root, build, analyzer_mode="shallow"):
    """clang's analyzer follows calls only a little way when it is shallow: deep it takes twice as long as all the rest."""
    commands = commands_of_sources(root, build)
    if not commands:
        print("no source to check: is the build configured?")
        return 1
    names = sorted(commands)
    failed = 0
    with tempfile.TemporaryDirectory() as database, concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        with open(os.path.join(database, "compile_commands.json"), "w", encoding="utf-8") as file:
            json.dump(list(commands.values()), file)
        for name, (code, output) in zip(names, pool.map(lambda name: tidy_one(root, database, name, analyzer_mode), names)):
            if code != 0:
                failed += 1
                print(f"{os.path.relpath(name, root)}:\n{output}")
    print(f"{len(names)} sources, {failed} with findings")
    return 1 if failed else 0


def check_tidy_deep(root, build):
    return check_tidy(root, build, "deep")


CHECKS = {"format": check_format, "words": check_words, "tidy": check_tidy, "tidy_deep": check_tidy_deep}
sys.exit(CHECKS[sys.argv[1]](*sys.argv[2:]))
