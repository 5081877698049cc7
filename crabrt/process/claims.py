"""Whose a process is, where several runs live in one program: each belongs to one of them at most.

Nothing in ``/proc`` says which thread started a process. Where tools of several runs ran when it
began, it says whose it is by where it works, and by the paths it was called with; where that says
nothing, the run that sees it first has it. Programs that crabrt itself runs for a moment are
nobody's.
"""

from __future__ import annotations

import os
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from crabrt.core.forks import fork_safe
from crabrt.process import table
from crabrt.process.beside import whose
from crabrt.process.table import Process

Identity = tuple[int, int]

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
)
"""What a program sees that is nobody's and may outlive us: no ``CRAB_RUN``, by which it would be
taken for a run's; messages in English; nobody's own configuration."""


class Claimant(Protocol):
    """Who may have processes.

    Attributes:
        workspace: the absolute path of the directory it works in; empty: nobody knows.
    """

    workspace: bytes


_lock = fork_safe(threading.RLock())
_claimants: Final[weakref.WeakSet[Claimant]] = weakref.WeakSet()
_claims: Final[weakref.WeakKeyDictionary[Claimant, set[Identity]]] = weakref.WeakKeyDictionary()
_ours: Final[set[Identity]] = set()
_left: Final[set[Identity]] = set()
"""What runs of this program had when they ended: no orphan of another run's."""


def enter(who: Claimant) -> None:
    """`who` may have processes from now on, until it is no more or `leave`."""
    with _lock:
        _claimants.add(who)


def leave(who: Claimant) -> None:
    """`who` looks after nobody any more; what it had is still no orphan of another's."""
    with _lock:
        _claimants.discard(who)
        _left.update(_claims.pop(who, ()))


def helper(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a program that is nobody's, nor what it starts."""
    with _lock:  # nobody lists processes until it is known
        child = start()
        found = table.look(child.pid)
        if found is not None:
            _ours.add(found.identity)
        return child


def descendants(pid: int) -> list[Process]:
    """As `table.descendants`, but for helpers.

    Raises:
        OSError: they cannot be listed.
    """
    with _lock:
        found = table.descendants(pid)
        there = {one.identity for one in found}
        _ours.intersection_update(there)
        _left.intersection_update(there)
        if not _ours:
            return found
        left_out: set[int] = set()
        for one in found:  # parents before children
            if one.identity in _ours or one.parent in left_out:
                left_out.add(one.pid)
        return [one for one in found if one.pid not in left_out]


def claim(who: Claimant, processes: Iterable[Identity]) -> None:
    """These are `who`'s, and nobody else's."""
    with _lock:
        mine = set(processes)
        _left.difference_update(mine)
        for other in list(_claims):
            _claims[other] -= mine
        _claims.setdefault(who, set()).update(mine)


def may_have(who: Claimant, process: Process) -> bool:
    """Whether nobody else has `process`, or has a better right to it.

    To be asked at every look: one that was seen before it became what it is says nothing.
    """
    with _lock:
        others = [one for one in _claimants if one is not who]
        elsewhere = [one for one in others if one.workspace and one.workspace != who.workspace]
        if elsewhere:
            if is_about(process.pid, who.workspace):
                return True
            if any(is_about(process.pid, other.workspace) for other in elsewhere):
                return False
        return not any(process.identity in _claims.get(other, ()) for other in others)


def is_nobody_elses(who: Claimant, process: Process) -> bool:
    """Whether no other run of this program can have `process`, wherever it began."""
    with _lock:
        if process.identity in _left:
            return False
        others = [one for one in _claimants if one is not who]
        if any(one.workspace in {b"", who.workspace} for one in others):
            return False
        return not others or is_about(process.pid, who.workspace)


def settle(who: Claimant, processes: Iterable[Identity]) -> None:
    """Of all that `who` had, `processes` are left."""
    with _lock:
        _claims[who] = set(processes)


def is_about(pid: int, directory: bytes) -> bool:
    """Whether a process works in `directory`, or was called with a path in it.

    Not if it is shown another directory there.
    """
    if not directory or whose.is_hidden(pid, directory):
        return False
    if whose.other_paths(pid, directory):
        return True
    inside = directory.rstrip(b"/") + b"/"
    if (table.directory(pid) + b"/").startswith(inside):
        return True
    return any(inside in os.fsencode(word) + b"/" for word in table.command(pid))
