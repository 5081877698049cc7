"""What trees come back without: whatever leads out of them has another end.

Connections are closed by the restore itself (``criu.connections``); pipes have no other end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from crabrt.core.processes import ProcessState, ProcessTree
from crabrt.process.criu import LOST, Leads, leading_out, left_behind, outside
from crabrt.process.revivals import Revival, Severed


def would_be_lost(pid: int) -> list[str]:
    """What of the tree under `pid` would not come back, for people.

    Output that leads elsewhere is dropped then: no loss.
    """
    try:
        found = outside(pid)
    except OSError as error:
        return [f"whether it is connected with other programs cannot be told: {error}"]
    kinds = {one.leads for one in found if not (one.leads is Leads.PIPE and one.writes)}
    return [*(text for leads, text in LOST.items() if leads in kinds), *_unmounted(pid)]


def _unmounted(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it ended
        for mount in left_behind(pid):
            place = mount.point.decode("utf-8", "backslashreplace")
            kind = mount.kind.decode("utf-8", "backslashreplace")
            yield f"what it sees at {place} ({kind}) is mounted nowhere else any more"


def with_severed(
    state: ProcessState, images: Callable[[ProcessTree], Path], revival: Revival
) -> Revival:
    """`revival`, and what of it is cut off.

    Args:
        state: what was alive.
        images: gives the directory of those of a tree that is back.
        revival: who is back.
    """
    return replace(revival, severed=tuple(_severed(state, images, revival)))


def _severed(
    state: ProcessState, images: Callable[[ProcessTree], Path], revival: Revival
) -> Iterator[Severed]:
    back = {top.identity for top in revival.revived}
    for tree in state.trees:
        if tree.top.identity in back:
            closed = leading_out(images(tree))
            lost = tuple(one for one in tree.lost if one != LOST[Leads.TCP])  # `closed` says more
            if closed or lost:
                yield Severed(tree.top, closed, lost)
