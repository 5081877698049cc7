"""What of a state has no image, started again in the order in which it once began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.process.family import Identity
from crabrt.process.respawning.launching import NotStarted
from crabrt.process.respawning.starting import Started, start
from crabrt.process.revivals import Missing, Revival

_NOT_RECORDED: Final = "it has no image, and nothing tells how it was started"


def respawn(state: ProcessState, revival: Revival, run: str = "") -> Revival:
    """Start again what is in `state` and could not be revived; `revival`, and what that gave.

    A tree is back if all of it is, but for shells in whose place what they ran is. A shell of the
    loop's is rebuilt by the loop, when it goes on.

    Args:
        state: what was alive.
        revival: what images gave.
        run: whose the processes are from now on; empty: whose they were.
    """
    known = {one.top.identity: one for one in revival.missing}
    trees = [tree for tree in state.trees if tree.top.identity in known]
    started, failed = _started(trees, run)
    ours = {shell.top for shell in state.shells if shell.state}
    missing = [failed[one.identity] for tree in trees for one in tree.startable
               if one.identity in failed]  # fmt: skip
    others = [tree for tree in trees if tree.top.pid not in ours]
    missing += [known[tree.top.identity] for tree in others if not tree.services]
    missing += [Missing(one, _NOT_RECORDED) for tree in others if tree.services
                for one in _not_recorded(tree)]  # fmt: skip
    return replace(
        revival,
        started=started,
        rebuilt=tuple(tree.top for tree in trees if tree.top.pid in ours),
        missing=tuple(missing),
        processes=(*revival.processes, *(who for one in started for who in one.processes)),
    )


def _started(
    trees: Iterable[ProcessTree], run: str
) -> tuple[tuple[Started, ...], dict[Identity, Missing]]:
    """Those that run again, and those that do not."""
    every = [(tree, service) for tree in trees for service in tree.services]
    begun = {one.pid: one for tree, _ in every for one in tree.startable}
    started: list[Started] = []
    failed: dict[Identity, Missing] = {}
    for tree, service in sorted(every, key=lambda pair: begun[pair[1].pid].started):
        was = begun[service.pid]
        listened = tuple(dict.fromkeys(at for one in tree.below(was.pid) for at in one.listens))
        try:
            started.append(start(was, service, listened, run))
        except NotStarted as error:
            failed[was.identity] = Missing(was, error.message, (was,))
    return tuple(started), failed


def _not_recorded(tree: ProcessTree) -> list[LastingProcess]:
    """The topmost ones of those that no recorded process had started, nor had started one."""
    recorded = {service.pid for service in tree.services}
    below = {one.pid for pid in recorded for one in tree.below(pid)}
    rest = {one.pid for one in tree.processes if one.pid not in below
            and recorded.isdisjoint(other.pid for other in tree.below(one.pid))}  # fmt: skip
    return [one for one in tree.processes if one.pid in rest and one.parent not in rest]
