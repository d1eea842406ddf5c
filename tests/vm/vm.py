#!/usr/bin/env python3
"""vm.py GUEST KERNEL_FOLDER BUILD_FOLDER ALLOWED_SKIPS: boots a guest (guests.py), and judges what came out of it.

Leaves the console, each program's words and its report in BUILD_FOLDER/vm/GUEST-KERNEL. Exits with 0 when every program ended
well, every test passed, those that the guest is for were not skipped, and other skips are on the list; with 77 when QEMU or
the kernel is not there; else with 1.
"""
import ctypes
import fnmatch
import glob
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree

sys.dont_write_bytecode = True  # nothing beside the sources
# pylint: disable=wrong-import-position
import guests
import initramfs

SKIPPED = 77
QEMU = "qemu-system-x86_64"
# QEMU 7.2 leaves garbage in the flags behind a cmpxchg16b without lock, which the kernel's allocator uses where there is one:
# from 6.12 on most boots ended in an oops.
PROCESSOR = "max,-cx16"


def die_with_parent():
    """In the child: however this script ends, the machine does not outlive it."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def boot(guest, kernel, folder, archive):
    """Until the guest ends, or its time is up. True: it ended by itself."""
    image = glob.glob(f"{kernel}/boot/vmlinuz-*")[0]
    command = [QEMU, "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", str(guest.cpus), "-nodefaults", "-no-user-config",
               "-display", "none", "-no-reboot", *guest.arguments, "-serial", f"file:{folder}/console.txt",
               "-serial", f"file:{folder}/results.tar", "-kernel", image, "-initrd", archive,
               "-append", f"console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check mitigations=off {guest.kernel_arguments}"]
    with open(f"{folder}/qemu.txt", "wb") as said:
        # pylint: disable-next=subprocess-popen-preexec-fn
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=die_with_parent) as machine:
            try:
                return machine.wait(guest.seconds_max) == 0
            except subprocess.TimeoutExpired:
                machine.kill()
                return False


def results_of(folder):
    """File name -> bytes, of all archives that came whole."""
    files = {}
    with open(f"{folder}/results.tar", "rb") as file:
        stream = io.BytesIO(file.read())
    try:
        with tarfile.open(fileobj=stream, ignore_zeros=True) as archives:
            for member in archives:
                if member.isfile():
                    files[os.path.basename(member.name)] = archives.extractfile(member).read()
    except (tarfile.TarError, EOFError):
        pass  # what is missing is missed below
    for name, content in files.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(content)
    return files


class Verdict:
    def __init__(self, allowed):
        self.allowed = allowed
        self.passed = set()
        self.skipped = 0
        self.wrong = []

    def fail(self, what, words=""):
        self.wrong.append(what)
        print(f"--- {what}\n{words.rstrip()[-8000:]}")

    def add_case(self, program, case):
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None:
            self.fail(f"{program}: {name} failed", "\n".join(each.text or "" for each in case.findall("failure")))
        elif skip is None and case.get("status") == "run":
            self.passed.add(f"{program}:{name}")
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in self.allowed):
            self.skipped += 1
            print(f"skipped in {program}: {name}: {(skip.get('message') or '').strip().splitlines()[-1]}")
        else:
            self.fail(f"{program}: {name} was skipped, and is not on the list of allowed skips")

    def add_program(self, program, files):
        words = files.get(f"{program.name}.txt", b"").decode(errors="replace")
        code = files.get(f"{program.name}.exit", b"none").decode().strip()
        print(f"{program.name}: {files.get(f'{program.name}.seconds', b'?').decode().strip()} s of {program.seconds_max}")
        if code != "0":
            self.fail(f"{program.name} ended with {code}", words)
        for pattern in program.says:
            if not re.search(pattern, words):
                self.fail(f"{program.name} does not say {pattern}", words)
        if not program.has_report:
            return
        try:
            cases = ElementTree.fromstring(files[f"{program.name}.xml"]).findall(".//testcase")
        except (KeyError, ElementTree.ParseError):
            self.fail(f"{program.name} left no report")
            return
        for case in cases:
            self.add_case(program.name, case)
        for pattern in program.proves:
            names = [f"{case.get('classname')}.{case.get('name')}" for case in cases]
            proofs = fnmatch.filter(names, pattern)
            for name in proofs or [pattern]:
                if f"{program.name}:{name}" not in self.passed:
                    self.fail(f"{program.name}: {name} did not pass, and the guest is there for it")


def allowed_skips(path):
    with open(path, encoding="utf-8") as lines:
        return [line.partition(": ")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def main():
    name, kernel, build, allowed = sys.argv[1:]
    guest = guests.GUESTS[name]
    if shutil.which(QEMU) is None or not glob.glob(f"{kernel}/boot/vmlinuz-*"):
        print(f"no {QEMU}, or no kernel in {kernel}: ./quickstart test --full gets both")
        return SKIPPED
    folder = f"{build}/vm/{name}-{os.path.basename(kernel)}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    archive = f"{folder}/initramfs"
    initramfs.build(archive, kernel, guest.modules, guest.binaries(build), guest.script(build))
    ended = boot(guest, kernel, folder, archive)
    os.unlink(archive)
    files = results_of(folder)
    verdict = Verdict(allowed_skips(allowed))
    for program in guest.programs:
        verdict.add_program(program, files)
    if not ended or "end" not in files:
        with open(f"{folder}/console.txt", encoding="utf-8", errors="replace") as console:
            verdict.fail(f"the guest did not come to its end (within {guest.seconds_max} s)", console.read())
    print(f"{len(verdict.passed)} passed, {len(verdict.wrong)} wrong, {verdict.skipped} skipped; all words are in {folder}")
    return 1 if verdict.wrong else 0


sys.exit(main())
