"""Whom people know of a tree: not the first process of a fork's namespaces, which is crabrt's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import msgspec

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.process.beside import keeper
from crabrt.process.beside.coming import how_to_reach
from crabrt.process.revivals import Missing, Revival

_NAMES: Final = {keeper.SHOWN.encode(), b"sleep"}
_SECONDS: Final = keeper.SECONDS.encode()


def faces(tree: ProcessTree) -> tuple[LastingProcess, ...]:
    """Its topmost process; of a fork's namespaces those below the first one, which may be none."""
    top = tree.top
    if not tree.namespace or top.command[1:] != (_SECONDS,) or top.command[0] not in _NAMES:
        return (top,)
    return tuple(one for one in tree.processes[1:] if one.parent == top.pid)


def named(revival: Revival, states: Iterable[ProcessState]) -> Revival:
    """`revival` with those for topmost processes that people know; `states` have the trees."""
    known = {tree.top.identity: faces(tree) for state in states for tree in state.trees}

    def each(tops: Iterable[LastingProcess]) -> Iterator[LastingProcess]:
        for top in tops:
            yield from known.get(top.identity, (top,))

    def missing(trees: Iterable[Missing]) -> Iterator[Missing]:
        for tree in trees:
            for top in known.get(tree.top.identity, (tree.top,)):
                yield msgspec.structs.replace(tree, top=top)

    return replace(
        revival,
        ended=tuple(each(revival.ended)),
        revived=tuple(each(revival.revived)),
        missing=tuple(missing(revival.missing)),
        lost=tuple(missing(revival.lost)),
    )


def told(trees: Iterable[ProcessTree], numbers: Iterable[tuple[int, int]]) -> Iterator[str]:
    """How those are reached that are back in a network of their own, for people.

    Args:
        trees: as they were recorded.
        numbers: what the topmost ones were, and what they are.
    """
    now = dict(numbers)
    apart = [tree for tree in trees if tree.network and tree.top.pid in now]
    for tree in apart:
        where = sorted({where for one in tree.processes for where in one.listens})
        if where:
            yield how_to_reach(where, now[tree.top.pid], are_taken=False)
