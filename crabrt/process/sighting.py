"""What of a run is alive at one moment, and whether it has run since an earlier one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from crabrt.core.clock import boot_id
from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.process import sockets, table
from crabrt.process.belongings import belongings
from crabrt.process.beside import network
from crabrt.process.family import Identity
from crabrt.process.table import Process


@dataclass(frozen=True)
class Sighting:
    """The live processes of a run at one moment.

    Attributes:
        state: who they are.
        pulses: how long each had run, in nanoseconds (see `table.pulse`); None: it runs.
        unseen: why nobody knows which there are; empty where that is known.
        unsure: processes that may be the run's, or not: nobody can tell. They have pulses, too.
    """

    state: ProcessState = field(default_factory=ProcessState)
    pulses: Mapping[Identity, int | None] = field(default_factory=dict)
    unseen: str = ""
    unsure: tuple[LastingProcess, ...] = ()

    @property
    def processes(self) -> tuple[LastingProcess, ...]:
        """All of them, tree by tree."""
        return tuple(one for tree in self.state.trees for one in tree.processes)

    @property
    def quiet(self) -> bool:
        """Whether none of them runs, so that nothing of the run changes anything."""
        ours = self.pulses.keys() - {one.identity for one in self.unsure}
        return not self.unseen and all(self.pulses[who] is not None for who in ours)

    def slept_since(self, before: Sighting, who: Identity) -> bool:
        """Whether `who` was there `before` and surely did not run since."""
        now = self.pulses.get(who)
        return now is not None and before.pulses.get(who) == now


def sight(
    processes: Iterable[Process],
    before: Sighting,
    workspace: bytes = b"",
    unsure: Iterable[Process] = (),
) -> Sighting:
    """Look at each of `processes`; who slept since `before` is as it was described then.

    Args:
        processes: that live, parents before children.
        before: the last look at them.
        workspace: where they work, an absolute path; empty: nobody is told what they hold of it.
        unsure: that live, and may not be the run's.
    """
    alive, perhaps = list(processes), list(unsure)
    pulses = {one.identity: table.pulse(one.pid) for one in (*alive, *perhaps)}
    described = {one.identity: one for one in (*before.processes, *before.unsure)}

    def described_now(process: Process, kin: Callable[[], frozenset[int]]) -> LastingProcess:
        who = process.identity
        was, pulse = described.get(who), pulses[who]
        slept = pulse is not None and before.pulses.get(who) == pulse
        return was if was is not None and slept else _described(process, workspace, kin)

    def described_tree(tree: list[Process]) -> tuple[LastingProcess, ...]:
        kin = functools.cache(
            lambda: frozenset[int]().union(*(sockets.held_inodes(one.pid) for one in tree))
        )
        return tuple(described_now(one, kin) for one in tree)

    trees = [
        ProcessTree(described_tree(tree), namespace=apart, network=connected_apart)
        for tree, apart, connected_apart in map(_apart, _trees(alive))
    ]
    kept = tuple(tree for tree in trees if not _waits_outside(tree, trees))
    return Sighting(
        ProcessState(boot_id(), kept),
        pulses,
        unsure=tuple(one for each in perhaps for one in described_tree([each])),
    )


def again(before: Sighting) -> Sighting:
    """The same processes a moment later; those that have ended have no pulse."""
    pulses = {who: table.pulse(who[0]) for who in before.pulses}
    return Sighting(before.state, pulses, unsure=before.unsure)


def _trees(processes: Iterable[Process]) -> list[list[Process]]:
    """Those that descend from one another, together, the topmost first.

    The first process of a PID namespace is the topmost of a tree of its own.
    """
    tree_of: dict[int, list[Process]] = {}
    trees: list[list[Process]] = []
    for one in processes:
        tree = tree_of.get(one.parent)
        if tree is None or (_is_apart(one.pid) and not _is_apart(one.parent)):
            trees.append(tree := [])
        tree_of[one.pid] = tree
        tree.append(one)
    return sorted(trees, key=lambda tree: tree[0].pid)


def _apart(tree: list[Process]) -> tuple[list[Process], bool, bool]:
    """With whether its namespaces of processes, and of the network, are not ours."""
    apart = _is_apart(tree[0].pid)
    return tree, apart, apart and network.is_apart(tree[0].pid)


def _is_apart(pid: int) -> bool:
    """Whether it is in a PID namespace that is not ours."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return False


def _waits_outside(tree: ProcessTree, trees: Iterable[ProcessTree]) -> bool:
    """Whether it does nothing but wait for a namespace that it made: unshare(1) does."""
    top = tree.top
    return (
        len(tree.processes) == 1
        and os.path.basename((top.command or (b"",))[0]) == b"unshare"
        and any(other.namespace and other.top.parent == top.pid for other in trees)
    )


def _described(
    process: Process, workspace: bytes, kin: Callable[[], frozenset[int]]
) -> LastingProcess:
    held = belongings(process.pid, workspace, kin)
    return LastingProcess(
        process.pid,
        process.parent,
        process.started,
        table.command(process.pid),
        table.directory(process.pid),
        held.listens,
        held.files,
        held.connections,
        held.unlisted,
    )
