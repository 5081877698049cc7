"""As whom CRIU takes an image: as root, or as the one user that a tree belongs to.

The limits of a process are told to who is the same user and group, or has CAP_SYS_RESOURCE
(prlimit(2)), which root itself lacks in many containers. There CRIU becomes that user, and keeps
all else that root may do (ambient capabilities, capabilities(7)); CRIU calls it ``--unprivileged``.
A restore takes none of that, since each process sets limits of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Final, NamedTuple

from crabrt.process.claims import ENVIRONMENT
from crabrt.workspace.procfs import read

_SYS_RESOURCE: Final = 24  # linux/capability.h
_OPTION: Final = "--unprivileged"


class Owner(NamedTuple):
    """Whose a process is.

    Attributes:
        user, group: their numbers.
    """

    user: int
    group: int


class Become(NamedTuple):
    """How CRIU becomes somebody.

    Attributes:
        before: what is put before its command.
        options: what it is told.
    """

    before: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def become(pids: Iterable[int]) -> Become:
    """How CRIU becomes the owner of processes that it cannot ask for their limits otherwise.

    Nobody, where it can; and where that helps nothing, since they are of several users, or there is
    no ``setpriv``: CRIU will say what it lacks.
    """
    held = _capabilities()
    program = shutil.which("setpriv", path=ENVIRONMENT["PATH"])
    if held >> _SYS_RESOURCE & 1 or program is None:
        return Become()
    owners = {owner for pid in pids for owner in _owners(pid)}
    if len(owners) != 1 or owners == {Owner(os.geteuid(), os.getegid())}:
        return Become()
    (owner,) = owners
    numbers = (number for number in range(held.bit_length()) if held >> number & 1)
    kept = ",".join(f"+cap_{number}" for number in numbers)
    who = (f"--reuid={owner.user}", f"--regid={owner.group}", "--clear-groups")
    caps = (f"--inh-caps={kept}", f"--ambient-caps={kept}")
    return Become((program, *who, *caps, "--"), (_OPTION,))


def _owners(pid: int) -> set[Owner]:
    """As whom it is real, effective and saved: one as a rule; nobody if it has ended."""
    try:
        status = read(b"/proc/%d/status" % pid)
    except OSError:
        return set()
    users, groups = (map(int, _words(status, name)[:3]) for name in (b"Uid:", b"Gid:"))
    return {Owner(*pair) for pair in zip(users, groups, strict=True)}


def _capabilities() -> int:
    """What this process may do, a bit for each."""
    return int(_words(read(b"/proc/self/status"), b"CapEff:")[0], 16)


def _words(status: bytes, name: bytes) -> list[bytes]:
    for line in status.splitlines():
        if line.startswith(name):
            return line[len(name) :].split()
    return []
