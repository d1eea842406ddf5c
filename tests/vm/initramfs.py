"""The guest's whole world: an archive that the kernel unpacks into memory, made of the programs under test, the libraries they
need, busybox, and some of the kernel's modules. Programs lie where they lie outside, so that the paths built into them hold."""
import glob
import lzma
import os
import re
import subprocess
import tempfile


class Archive:
    """A cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.parts = []
        self.names = set()

    def add(self, name, mode, content=b""):
        name = name.strip("/")
        if name in self.names:
            return
        if os.path.dirname(name):
            self.add(os.path.dirname(name), 0o40755)
        self.names.add(name)
        # ino, mode, uid, gid, nlink, mtime, size, device, its minor, rdev, its minor, size of the name, check
        numbers = (len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        self.parts += [header, bytes(-len(header) % 4), content, bytes(-len(content) % 4)]

    def add_file(self, name, path):
        with open(path, "rb") as file:
            self.add(name, 0o100755, file.read())

    def written(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def libraries_of(path):
    """What the loader would map, the loader too."""
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def without_debug(path):
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["objcopy", "--strip-debug", path, stripped.name], check=True)
        return stripped.read()


def module(kernel, name):
    """A module's bytes; some kernels have theirs compressed."""
    found = glob.glob(f"{kernel}/lib/modules/*/kernel/**/{name}.ko*", recursive=True)
    if not found:
        return None
    with open(found[0], "rb") as file:
        content = file.read()
    return lzma.decompress(content) if found[0].endswith(".xz") else content


def build(path, kernel, modules, binaries, script):
    """Writes the archive: `script` is what the guest's init runs."""
    archive = Archive()
    archive.add_file("init", os.path.join(os.path.dirname(os.path.abspath(__file__)), "init"))
    archive.add_file("bin/busybox", "/bin/busybox")
    archive.add("programs", 0o100644, script.encode())
    archive.add("tmp", 0o40777)
    archive.add("etc/passwd", 0o100644, b"root:x:0:0::/:/bin/sh\n")
    for name in modules:
        content = module(kernel, name)
        if content is not None:
            archive.add(f"modules/{name}.ko", 0o100644, content)
    for binary in binaries:
        archive.add(binary, 0o100755, without_debug(binary))
        for library in libraries_of(binary):
            archive.add_file(library, os.path.realpath(library))
    with open(path, "wb") as file:
        file.write(archive.written())
