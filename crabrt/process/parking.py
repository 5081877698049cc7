"""Who runs is imaged and stands still, and then ends or goes on: the first half of a restore.

The order, so that nothing is lost wherever it is killed: they are imaged and stand still
(`Parked`), the state before is durable and logged, then they end, then the files change, then the
others come back (`reviving`). Until they end, our death lets them go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Self

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.core.processes import LastingProcess, ProcessState
from crabrt.process import criu, orphans, table
from crabrt.process.beside import whose
from crabrt.process.criu import Criu, NotImaged
from crabrt.process.family import Identity
from crabrt.process.holdings import files_to_match
from crabrt.process.respawning.recording import with_services
from crabrt.process.revivals import Missing
from crabrt.process.severing import would_be_lost
from crabrt.process.shells import among
from crabrt.process.sighting import Sighting, sight
from crabrt.process.signalling import last_first, send
from crabrt.process.standstill import Standstill
from crabrt.process.state import put_state
from crabrt.process.table import Process

_GONE_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.005
_SLICE_S: Final = 0.05
_WAITED_MOST: Final = 256
"""For so many processes there is a descriptor each."""


def running(
    known: Iterable[ProcessState],
    revived: Iterable[Identity],
    runs: Collection[str],
    is_live: Callable[[str], bool],
    *,
    workspace: bytes,
) -> Sighting:
    """What dead runs left alive, with the shells that they ever knew of.

    Args:
        known: what their checkpoints say.
        revived: what a restore brought back since.
        runs: their ids.
        is_live: whether another run has an owner.
        workspace: where they worked; who sees the directory of a fork there is the fork's.
    """
    spared, states = orphans.lineage(), list(known)

    def is_theirs(pid: int) -> bool:
        if whose.other_paths(pid, workspace):
            return True
        return not (whose.is_hidden(pid, workspace) or orphans.is_anothers(pid, runs, is_live))

    found: dict[int, Process] = {}
    tops = [one.pid for one in orphans.find_orphans(runs, is_live)]
    for state in states:
        if state.boot == boot_id():
            tops += [
                one.pid
                for tree in state.trees
                for one in tree.processes
                if _identity(one.pid) == one.identity
            ]
    tops += [pid for pid, started in revived if _identity(pid) == (pid, started)]
    for pid in tops:
        with contextlib.suppress(OSError):
            top = table.look(pid)
            if top is not None and pid not in spared and is_theirs(pid):
                found[pid] = top
                found |= {one.pid: one for one in table.descendants(pid)}
    alive = [one for one in found.values() if not one.ended and one.pid not in spared]
    seen = sight(_parents_first(alive), Sighting(), workspace)
    shells = tuple(shell for state in states for shell in state.shells)
    return replace(seen, state=msgspec.structs.replace(seen.state, shells=shells))


def _parents_first(processes: list[Process]) -> list[Process]:
    by_pid = {one.pid: one for one in processes}
    ordered: dict[int, Process] = {}

    def add(one: Process) -> None:
        if one.pid not in ordered:
            above = by_pid.get(one.parent)
            if above is not None:
                add(above)
            ordered[one.pid] = one

    for one in processes:
        add(one)
    return list(ordered.values())


def _identity(pid: int) -> Identity | None:
    try:
        found = table.look(pid)
    except OSError:
        return None
    return None if found is None or found.ended else found.identity


class Parked:
    """What runs, imaged and standing still, until it is ended or goes on.

    As a context manager: leaving it lets everybody go on who has not ended.

    Attributes:
        root: of the images in the store; None where nothing ran.
        lost: who has no image.
    """

    def __init__(
        self,
        alive: Sighting,
        writer: ObjectWriter,
        by: Criu | str,
        scratch: Path,
        workspace: bytes = b"",
    ) -> None:
        self._alive = alive
        self._workspace = workspace
        self._still: Standstill | None = None
        self.root: ObjectId | None = None
        self.lost: tuple[Missing, ...] = ()
        if alive.processes:
            self._still = Standstill()
            self._stand_still(self._still, writer, by, scratch)

    def _stand_still(
        self, still: Standstill, writer: ObjectWriter, by: Criu | str, scratch: Path
    ) -> None:
        try:
            seen = [one.pid for one in self._alive.processes]  # parents first
            still.watch(seen)
            trees, images, lost = [], {}, []
            for tree in self._alive.state.trees:
                pid, why_not = tree.top.pid, by if isinstance(by, str) else ""
                into, cut = scratch / f"before-{pid}", would_be_lost(pid)
                if not isinstance(by, str):
                    try:
                        criu.dump(by, pid, into, leave="stopped", own_namespace=tree.namespace)
                        images[pid] = criu.put_images(into, writer)
                    except NotImaged as error:
                        why_not = error.message
                    except OSError as error:
                        why_not = f"an image cannot be begun: {error.strerror or error}"
                there = partial(_with_descendants, tree.processes)
                held = () if why_not else files_to_match(there(), self._workspace)
                kept = msgspec.structs.replace(
                    tree, imaged=not why_not, why_not=why_not, lost=tuple(cut), held=held
                )
                if why_not:
                    still.stop_all(there)
                    (kept,) = with_services([kept], daemons=False)
                    lost.append(Missing(tree.top, why_not, kept.startable))
                else:
                    fresh = [pid for pid in there() if pid not in seen]
                    still.watch(fresh, stopped=True)  # it started them meanwhile
                trees.append(kept)
            self.lost = tuple(lost)
            shells = among(trees, self._alive.state.shells)
            state = ProcessState(boot_id(), tuple(trees), shells, self._workspace)
            self.root = put_state(state, images, writer)
        except BaseException:
            self.go_on()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()

    def end(self) -> None:
        """End them all, and wait until their numbers are free (with a limit)."""
        seen = {one.identity for one in self._alive.processes}
        below = map(_identity, _with_descendants(self._alive.processes))
        kill(seen | {one for one in below if one is not None})
        still, self._still = self._still, None
        if still is not None:
            still.dismiss()

    def go_on(self) -> None:
        """Let them go on, if they have not ended."""
        still, self._still = self._still, None
        if still is not None:
            still.go_on()


def _with_descendants(processes: Iterable[LastingProcess]) -> list[int]:
    """The numbers of those of `processes` that are there, and of all that descends from them."""
    found: dict[int, None] = {}
    for one in processes:
        with contextlib.suppress(OSError):  # its own are not told: it is ended, or stopped, alone
            if _is_there(one.identity):
                found[one.pid] = None
                found |= {below.pid: None for below in table.descendants(one.pid)}
    return list(found)


def kill(processes: Iterable[Identity]) -> None:
    """End processes at once, and wait until their numbers are free; not for ever.

    In an order in which nobody is told of another's end: who stands still does nothing any more.
    Who may not be ended, being another user's, goes on: whoever wants its number will say so.
    """
    left = last_first(who for who in processes if _is_there(who))
    for who in left:
        send(who, signal.SIGKILL)
    until = time.monotonic() + _GONE_LIMIT_S
    _await_end(left, until)
    while left and time.monotonic() < until:
        for pid, _ in left:
            collect(pid)
        left = [who for who in left if _is_there(who)]
        if left:
            time.sleep(_POLL_S)


def _await_end(processes: Sequence[Identity], until: float) -> None:
    """Wait by descriptors, as far as those go: looks into ``/proc`` hold up those who end.

    Our own are collected as soon as they have ended: the first process of a PID namespace does not
    end before nobody is left in it.
    """
    poll, waiting = select.poll(), {}
    with contextlib.ExitStack() as opened:
        for who in processes[:_WAITED_MOST]:
            with contextlib.suppress(OSError):  # it is gone, or there are no descriptors left
                handle = os.pidfd_open(who[0])
                opened.callback(os.close, handle)
                if _is_there(who):
                    waiting[handle] = who[0]
                    poll.register(handle, select.POLLIN)
        while waiting and (left_s := until - time.monotonic()) > 0:
            for handle, _ in poll.poll(min(left_s, _SLICE_S) * 1e3):
                poll.unregister(handle)
                collect(waiting.pop(handle))
            for pid, _ in processes[_WAITED_MOST:]:
                collect(pid)


def collect(pid: int) -> None:
    """Take note of the end of a child of this process, if it is one and has ended."""
    with contextlib.suppress(ChildProcessError):  # it is not ours, or was collected
        os.waitpid(pid, os.WNOHANG)


def _is_there(who: Identity) -> bool:
    """Whether its number is taken by it, alive or not."""
    try:
        found = table.look(who[0])
    except OSError:
        return False
    return found is not None and found.identity == who
