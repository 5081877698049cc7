"""Who is the run's, and does not descend from the loop: it lost its parent, and another had it.

That happens where this process is no subreaper (see `subreaper`: it may not be one here, or the
program was told to be none), and below those that an earlier life of the loop had started. What
such a process inherited tells whose it is: ``CRAB_RUN``, or else a session or a process group in
which only the run's are. The user's own jobs have none of these. One that has none either, and
began in the loop's session or works in its directory, may be anybody's: that is said of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from crabrt.process import claims, orphans, table
from crabrt.process.beside import whose
from crabrt.process.table import TICK_NS, Process

_INIT: Final = 1


@dataclass(frozen=True)
class Outsiders:
    """Processes that descend neither from the loop nor from anybody known to be the run's.

    Attributes:
        marked: they carry a run of this program, or descend from one that does; parents first.
        lost: they lost their parent, and nothing that they carry says whose they are.
        others: everybody else, the loop's ancestors and the user's jobs among them.
    """

    marked: tuple[Process, ...] = ()
    lost: tuple[Process, ...] = ()
    others: tuple[Process, ...] = ()


def find(known: Collection[int], since_ns: int, sessions: Collection[int], at: bytes) -> Outsiders:
    """Look for them among all processes of the machine.

    Args:
        known: numbers of who is accounted for, with what descends from them.
        since_ns: who began before (``time.monotonic_ns``) is not the run's.
        sessions: that the loop has been in.
        at: the directory that the run works in, an absolute path.

    Raises:
        OSError: the processes cannot be listed.
    """
    everybody = dict(_everybody())
    ancestors, runs = orphans.lineage(), orphans.carried_by_children()
    since = since_ns - TICK_NS
    inside = _below(everybody, {os.getpid(), *known})
    new = {
        pid: one
        for pid, one in everybody.items()
        if pid not in inside and pid not in ancestors and not one.ended and one.began_ns >= since
    }
    said = {pid: orphans.said_by(pid) for pid in new}
    # Started by this very run, the user's own terminal carries it as well.
    proves = not any(orphans.names_any(orphans.said_by(pid), runs) for pid in ancestors)
    marked = {p for p in new if proves and orphans.is_only(said[p], runs) and _sees(p, at)}
    marked |= _below(new, marked)
    lost = [
        one
        for pid, one in new.items()
        if pid not in marked
        and (not said[pid] or orphans.names_any(said[pid], runs))
        and _has_lost_its_parent(one, everybody)
        and (one.session in sessions or claims.is_about(pid, at))
        and _sees(pid, at)
    ]
    told = marked | {one.pid for one in lost}
    others = tuple(o for pid, o in everybody.items() if pid not in told and pid not in inside)
    return Outsiders(tuple(_parents_first(new, marked)), tuple(lost), others)


def began_since(began_ns: int) -> int:
    """How many live that carry a run of this program, and began since then, but for its children.

    Raises:
        OSError: the processes cannot be listed.
    """
    return len(find((), began_ns, (), b"").marked)


def _everybody() -> Iterator[tuple[int, Process]]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                found = table.look(int(name))
                if found is not None:
                    yield found.pid, found


def _below(processes: Mapping[int, Process], tops: Collection[int]) -> set[int]:
    """The numbers of `tops`, and of those of `processes` that descend from one."""
    found, children = set(tops), _children(processes.values())
    waiting = list(tops)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


def _children(processes: Iterable[Process]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for one in processes:
        found.setdefault(one.parent, []).append(one.pid)
    return found


def _parents_first(processes: Mapping[int, Process], chosen: Collection[int]) -> Iterator[Process]:
    children = _children(processes[pid] for pid in chosen)
    waiting = [pid for pid in chosen if processes[pid].parent not in chosen]
    while waiting:
        pid = waiting.pop()
        yield processes[pid]
        waiting += children.get(pid, ())


def _has_lost_its_parent(process: Process, everybody: Mapping[int, Process]) -> bool:
    """Whether its parent surely did not start it, or is the first process, which takes orphans.

    A child begins in its parent's session, and may only leave it for one of its own.
    """
    above = everybody.get(process.parent)
    if above is None or above.pid == _INIT:
        return True
    return process.session not in {process.pid, above.session}


def _sees(pid: int, workspace: bytes) -> bool:
    """Whether it is not a fork's, which carries the original's mark and has rooms of its own."""
    return not workspace or not whose.is_hidden(pid, workspace)
