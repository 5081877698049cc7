"""A restored tree gets its POSIX locks before it runs: see `locks`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from crabrt.process import table, tracing
from crabrt.process.criu import locks, mending, wire
from crabrt.process.criu.causes import Cause, NotRevived
from crabrt.process.criu.locks import Lock
from crabrt.process.criu.mending import Tree

_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.001
_STANDS: Final = "T"
_TASK, _TASK_STATE, _TASK_STOPPED = 3, 1, 3  # core_entry.tc, task_core_entry.task_state


@dataclass(frozen=True)
class Locking:
    """The locks of an image. False if it has none: then there is nothing to do.

    Attributes:
        kept: its POSIX locks.
        stopped: who of it was stopped when it was imaged, in numbers of its own namespace.
    """

    kept: Sequence[Lock]
    stopped: frozenset[int]

    @classmethod
    def of(cls, images: Path) -> Self:
        """What is to be done for an image.

        Raises:
            NotRevived: it cannot be used.
        """
        try:
            kept = locks.recorded(images)
            return cls(kept, _stopped(images) if kept else frozenset())
        except (OSError, wire.NotUnderstood) as error:
            raise NotRevived(
                f"the locks among the images cannot be used: {error}",
                Cause.DAMAGED_IMAGE,
                where=str(images),
            ) from error

    def __bool__(self) -> bool:
        return bool(self.kept)

    def changed(self, images: Path) -> Mapping[str, bytes]:
        """What CRIU is to see instead, by name: it would wait for a lock that somebody else has."""
        is_ours = self.kept and tracing.SUPPORTED
        return {locks.FILE: locks.image_with(images, [])} if is_ours else {}

    def finish(self, root: int) -> None:
        """Put the locks back into a restored tree, which is stopped, and let it go on.

        Raises:
            NotRevived: that cannot be. The tree is there, and stopped.
        """
        where = f"process {root}"
        try:
            tree = _standing(root)
            numbers = {table.inner_number(one.pid): one.pid for one in tree.processes}
            problem = locks.put_back(self.kept, numbers)
        except OSError as error:
            problem = f"its locks on files cannot be put back: {error.strerror or error}"
        if problem:
            raise NotRevived(problem, Cause.FILE_LOCK, where=where)
        stays = {pid for inner, pid in numbers.items() if inner in self.stopped}
        mending.release(
            Tree(
                tuple(
                    one._replace(state=_STANDS if one.pid in stays else "S")
                    for one in tree.processes
                )
            )
        )


def _standing(root: int) -> Tree:
    """The tree under `root` once all of it stands, which CRIU has told it to.

    Raises:
        OSError: it ended, or does not stand.
    """
    until = time.monotonic() + _LIMIT_S
    while time.monotonic() < until:
        tree = Tree.of(root)
        if tree is None:
            raise ProcessLookupError(f"process {root} has ended")
        if all(one.state == _STANDS for one in tree.processes):
            return tree
        time.sleep(_POLL_S)
    raise OSError("it does not stand still")


def _stopped(images: Path) -> frozenset[int]:
    found = set()
    for task in wire.read_tasks((images / "pstree.img").read_bytes()):
        (core,) = wire.entries((images / f"core-{task.pid}.img").read_bytes(), wire.CORE_MAGIC)
        for field in wire.fields(core):
            if field.number == _TASK and wire.numbers(field.data).get(_TASK_STATE) == _TASK_STOPPED:
                found.add(task.pid)
    return frozenset(found)
