"""Who has what a tree needs that comes back from an image: its numbers, and where it listened.

CRIU says that an address is taken, and not by whom; and a dry run does not ask it at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Final

from crabrt.core.processes import ProcessTree
from crabrt.core.secrets import redact_text
from crabrt.process import sockets, table

_ADDRESSED: Final = ("tcp ", "udp ")
_COMMAND_MOST: Final = 60


def obstacle(tree: ProcessTree, ending: Collection[int]) -> str:
    """Why `tree` cannot come back as things stand, for people; empty if nothing is seen.

    Args:
        tree: as it was imaged.
        ending: the numbers of those that are in nobody's way, since they will have ended.
    """
    if not tree.namespace:
        for one in tree.processes:
            if one.pid not in ending and _lives(one.pid):
                return f"the process number {one.pid} is taken, by {named(one.pid)}"
    return next(listeners(tree, ending), "")


def listeners(tree: ProcessTree, ending: Collection[int] = ()) -> Iterator[str]:
    """Who listens where `tree` did, for people; `ending` as in `obstacle`."""
    wanted = {
        where
        for one in tree.processes
        for where in one.listens
        if where.startswith(_ADDRESSED) and not tree.network
    }
    found = {
        inode: next((where for where in wanted if sockets.collide(where, other)), "")
        for inode, other in sockets.listening_sockets(os.getpid()).items()
    }
    taken = {inode: where for inode, where in found.items() if where}
    holders = sockets.holders(taken)
    for inode, where in sorted(taken.items(), key=lambda one: one[1]):
        by = holders.get(inode, [])
        if not by:
            yield f"{where} is taken, by a process that may not be looked at"
        elif others := [pid for pid in by if pid not in ending]:
            yield f"{where} is taken, by {named(others[0])} (pid {others[0]})"


def _lives(number: int) -> bool:
    """Whether a process, or a thread, has a number and may keep it."""
    try:
        found = table.look(number)
    except OSError:
        return True
    return found is not None and not found.ended


def named(pid: int) -> str:
    """What a process runs, for people: without secrets, and not for long."""
    words = b" ".join(table.command(pid)).decode("utf-8", "backslashreplace")
    return redact_text(words)[:_COMMAND_MOST]
