"""What a suite is, and what several have in common."""
import dataclasses
import os
from collections.abc import Callable

UNDER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "under.sh")


@dataclasses.dataclass
class Suite:
    name: str
    title: str
    packages: list  # Debian's, which must be there
    near: str  # far below what the tests hold
    prepare: Callable  # (folder): fetches and builds what is not there yet; the version's text
    pieces: Callable  # (folder): the list of pieces


def put_under(program):
    """Puts a script in the place of `program` that runs it as the mode has it; the program itself moves into a folder `real`."""
    folder, name = os.path.split(program)
    os.makedirs(f"{folder}/real", exist_ok=True)
    os.rename(program, f"{folder}/real/{name}")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec "{UNDER}" "{folder}/real/{name}" "$@"\n')
    os.chmod(program, 0o755)


def not_root(command):
    """Where the user is root, `nobody` runs it, with the one capability that userfaultfd asks of ordinary users."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--inh-caps=-all,+sys_ptrace",
            "--ambient-caps=-all,+sys_ptrace", *command]


def is_under(program):
    return os.path.exists(os.path.join(os.path.dirname(program), "real", os.path.basename(program)))
