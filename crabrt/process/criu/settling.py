"""What is put right at the end of a dump, in the image and in the tree, before that goes on."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crabrt.process import table, unseen
from crabrt.process.criu import interrupted, locks, mending, wire
from crabrt.process.criu.causes import Cause, NotImaged
from crabrt.process.criu.mending import Tree
from crabrt.process.standstill import Standstill

_STOPPED: Final = "T"
_SLEEPS: Final = "S"


class Settling:
    """What CRIU gets wrong: see `interrupted` and `locks`. A context manager round its call.

    The sockets of a tree that is left stopped it leaves in repair mode: their other ends would not
    be told that it ended, and it could not read from them if it went on.

    A tree of which somebody is in a call that CRIU would interrupt is stopped before: CRIU may fail
    at any moment. Who came into such a call later is stopped before CRIU lets go. Leaving lets the
    tree go on, if it is to. If we die before, it goes on as well.

    Args:
        tree: as it was before the dump.
        images: where CRIU writes.
        running: whether the tree goes on after a success.
    """

    def __init__(self, tree: Tree, images: Path, *, running: bool) -> None:
        self._before = tree
        self._images = images
        self._running = running
        self._stopped: Tree | None = None
        self._still: Standstill | None = None

    def __enter__(self) -> Self:
        tree = self._before
        if any(interrupted.is_in_one(one.pid) for one in tree.processes):
            self._stop(tree)
        return self

    @property
    def tree(self) -> Tree:
        """The tree as whoever ends CRIU is to leave it: stopped, while it is stopped for this."""
        if self._stopped is None:
            return self._before
        return Tree(tuple(one._replace(state=_STOPPED) for one in self._stopped.processes))

    def held(self) -> None:
        """The images are written, and CRIU is about to let go.

        Raises:
            NotImaged: they cannot be put right, on this kind of machine or at all.
        """
        root = self._before.processes[0].pid
        try:
            tree = Tree.of(root)
            if tree is None:
                raise ProcessLookupError("it has ended")
            numbers = {table.inner_number(one.pid): one.pid for one in tree.processes}
            held = locks.held(numbers)
            lost = locks.lost_here(held, numbers)
            if lost:
                raise NotImaged(lost, Cause.MACHINE, where=f"process {root}")
            locks.record(self._images, held)
            is_any = interrupted.begin_anew(self._images, numbers)
            if self._stopped is not None:
                ran = {one.pid for one in self._stopped.processes if one.state != _STOPPED}
                interrupted.as_running(
                    self._images, (n for n, pid in numbers.items() if pid in ran)
                )
            elif is_any:
                self._stop_held(tree)
            if not self._running:  # CRIU leaves that to whoever sets the tree going
                mending.end_repair(tree)
        except (OSError, wire.NotUnderstood, ValueError) as error:
            raise NotImaged(
                f"the image cannot be put right: {error}", Cause.OTHER, where=f"process {root}"
            ) from error

    def _stop(self, tree: Tree) -> None:
        """Nobody of the tree runs. All of it: no parent sees a child stopped."""
        if self._before.cgroup is not None:
            return  # frozen or not: it is as its owner has it
        self._still, running = self._begin_stop(tree)
        try:
            self._still.stop(running)
            mending.rests(tree)
            unseen.take_back([one.pid for one in tree.processes])  # or it is part of the image
        except BaseException:
            self._still.go_on()
            raise

    def _stop_held(self, tree: Tree) -> None:
        """Nobody of a tree that CRIU holds runs when it lets go."""
        if self._before.cgroup is None:
            self._still, running = self._begin_stop(tree)
            self._still.watch(running, stopped=True)
            mending.hold(self._stopped or tree)

    def _begin_stop(self, tree: Tree) -> tuple[Standstill, list[int]]:
        """Note who is stopped for us; those run until now."""
        stopped = {one.identity for one in self._before.processes if one.state == _STOPPED}
        self._stopped = Tree(
            tuple(
                one._replace(state=_STOPPED if one.identity in stopped else _SLEEPS)
                for one in tree.processes
            )
        )
        running = [one.pid for one in self._stopped.processes if one.state != _STOPPED]
        return Standstill(), running

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stopped is None or self._still is None:
            return
        try:
            if mending.rests(self._stopped):
                unseen.take_back([one.pid for one in self._stopped.processes])
                interrupted.begin_anew_in(one.pid for one in self._stopped.alive())
        except OSError:  # it ended: nothing of it is told anything
            return
        finally:
            if self._running or error is not None:
                mending.release(self._stopped)
            self._still.dismiss()
