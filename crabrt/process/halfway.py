"""Who is back by a restore that was killed before it could say so.

Such a process is nobody's child, may have an environment that names no run, and began anew, so that
no checkpoint knows it. But it is one of those that were to come back, in everything that a restore
brings back: its number, its command, and where it works. In a fork's rooms the number is the one
that they have in there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from crabrt.core.clock import boot_id
from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.process import table
from crabrt.process.beside import whose
from crabrt.process.criu.guarding import is_half
from crabrt.process.family import Identity
from crabrt.process.table import Process

_SLACK_NS = 1_000_000_000


@dataclass(frozen=True)
class Found:
    """What there is of those that were to come back.

    Attributes:
        whole: the trees that are back: the topmost process goes on. CRIU lets nobody go on before
            all are there; what became of the others since is the tree's own affair.
        processes: who lives of those, with all that began below them since.
        halves: who is there of other trees: nothing is lost with them, as they never went on.
    """

    whole: tuple[ProcessTree, ...] = ()
    processes: tuple[Identity, ...] = ()
    halves: tuple[Identity, ...] = ()


def found(
    state: ProcessState,
    workspace: bytes,
    since_ns: int,
    before: Collection[Identity] = (),
    *,
    stayed: bool = False,
) -> Found:
    """Who of `state` is there by a restore that began then.

    Args:
        state: what was to come back.
        workspace: where, an absolute path.
        since_ns: when that restore began, by the wall clock (ns since the epoch).
        before: who lived then: none of those came back.
        stayed: whether who is in `state` may be one of those.
    """
    trees = [tree for tree in state.trees if tree.imaged]
    if state.workspace not in {b"", workspace}:  # the same numbers are the original's
        return _found_beside(trees, workspace, state.workspace, since_ns)
    whole: list[ProcessTree] = []
    processes: dict[Identity, None] = {}
    halves: list[Identity] = []
    for tree in trees:
        there = _stayed(tree) if stayed and state.boot == boot_id() else []
        since = [one for one in _alike(tree) if _began_ns(one) > since_ns - _SLACK_NS]
        there = there or [one for one in since if one.identity not in before]
        everybody = [one.identity for one in _with_descendants(there)]
        if there and _goes_on(there[0]) and (tree.namespace or there[0].pid == tree.top.pid):
            whole.append(tree)
            processes |= dict.fromkeys(everybody)
        else:
            halves += everybody
    return Found(tuple(whole), tuple(processes), tuple(halves))


def came_back(state: ProcessState, workspace: bytes, since_ns: int) -> tuple[Identity, ...]:
    """The same, wholly back or not, as one list."""
    there = found(state, workspace, since_ns)
    return (*there.processes, *there.halves)


def _found_beside(
    trees: Sequence[ProcessTree], workspace: bytes, place: bytes, since_ns: int
) -> Found:
    whole: list[ProcessTree] = []
    processes: list[Identity] = []
    halves: list[Identity] = []
    for pid, _ in whose.came_back(workspace, place, since_ns):
        first = _look(pid)
        inside = _with_descendants([first] if first is not None else [])
        going = {(table.inner_number(one.pid), table.command(one.pid)) for one in inside
                 if _goes_on(one)}  # fmt: skip
        tops = [(1 if tree.namespace else tree.top.pid, tree.top.command) for tree in trees]
        back = [tree for tree, top in zip(trees, tops, strict=True)
                if top in going and tree not in whole]  # fmt: skip
        whole += back
        mine = processes if back else halves
        mine += (one.identity for one in inside)
    return Found(tuple(whole), tuple(processes), tuple(halves))


def _goes_on(process: Process) -> bool:
    """Whether CRIU was done with it, and it is not stopped, as it is until its locks are back."""
    return process.state not in {"T", "t"} and not is_half(process.pid)


def _stayed(tree: ProcessTree) -> list[Process]:
    """Who of the tree never ended, if its topmost process did not."""
    seen = [(_look(one.pid), one) for one in tree.processes]
    there = [now for now, was in seen if now is not None and now.identity == was.identity]
    return there if any(one.pid == tree.top.pid for one in there) else []


def _alike(tree: ProcessTree) -> list[Process]:
    """Who is like those of the tree, whenever that began."""
    return _first_ones(tree.top) if tree.namespace else _same_numbers(tree.processes)


def _same_numbers(processes: tuple[LastingProcess, ...]) -> list[Process]:
    seen = [(_look(one.pid), one) for one in processes]
    return [now for now, was in seen if now is not None and _is_like(now, was)]


def _first_ones(top: LastingProcess) -> list[Process]:
    """First processes of PID namespaces that are like `top`: outside they have other numbers."""
    seen = [_look(int(name)) for name in os.listdir("/proc") if name.isdecimal()]
    return [
        one
        for one in seen
        if one is not None and _is_like(one, top) and table.inner_number(one.pid) == 1 != one.pid
    ]


def _with_descendants(processes: Iterable[Process]) -> list[Process]:
    every: dict[Identity, Process] = {}
    for one in processes:
        every[one.identity] = one
        with contextlib.suppress(OSError):  # its own are not told: they are not known for its own
            below = [other for other in table.descendants(one.pid) if not other.ended]
            every |= {other.identity: other for other in below}
    return list(every.values())


def _is_like(now: Process, was: LastingProcess) -> bool:
    return table.command(now.pid) == was.command and table.directory(now.pid) == was.directory


def _look(pid: int) -> Process | None:
    with contextlib.suppress(OSError):
        seen = table.look(pid)
        return None if seen is None or seen.ended else seen
    return None


def _began_ns(process: Process) -> int:
    return time.time_ns() - (time.monotonic_ns() - process.began_ns)
