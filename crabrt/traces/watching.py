"""The oracle at the boundaries of turns: what the workspace is when one ends and the next begins.

crabrt looks at the workspace while the model thinks, a moment after the oracle did. As long as
nobody writes between two turns that is the same state. So when crabrt has looked (the gate before
the next tool has let it pass), the boundary is confirmed: nothing may have moved since the oracle's
look, told by the times of all files, and by a second look where processes of the run are alive
(stores through a mapping move no time). A boundary that moved is unsteady, and the turns on both of
its sides are judged by nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from crabrt.testing import oracle
from crabrt.traces.report import OracleAnswer

_SHOWN = 20

Signature = dict[str, tuple[int, ...]]
"""Path to what moves when somebody writes: inode, size, modification and change time."""


class Boundaries:
    """Keeps two states in memory at most: the one that the open turn began on, and the newest.

    Args:
        workspace: the directory.
        exclude: relative paths that are no part of its state.
        alive: whether processes of the run are alive.

    Attributes:
        spent_s: what looking took.
        answers: the answer for each turn that ended, with what differs where something does.
    """

    def __init__(self, workspace: str, exclude: Sequence[str], alive: Callable[[], bool]) -> None:
        self._workspace, self._exclude, self._alive = workspace, tuple(exclude), alive
        self.spent_s = 0.0
        self.answers: dict[int, tuple[OracleAnswer, str]] = {}
        self._start: oracle.Manifest | None = None
        self._newest: oracle.Manifest | None = None
        self._seen: Signature | None = None
        self._moving = False
        self._ended: int | None = None
        self.look()
        self.ends(0)

    def look(self) -> None:
        """No tool runs: note the state, in case the turn is about to end."""
        self.confirm()  # a turn that called no tool never came to a gate
        started = time.perf_counter()
        self._moving = self._alive()
        self._seen = _signature(self._workspace)
        self._newest = self._manifest()
        self.spent_s += time.perf_counter() - started

    def ends(self, turn: int) -> None:
        """The state that was noted last is the end of `turn`."""
        self._ended = turn

    def confirm(self) -> None:
        """The end of the turn has been captured, too: does it still look as it was noted?"""
        if self._ended is None:
            return
        started = time.perf_counter()
        seen = _signature(self._workspace)
        if (
            (self._moving or seen is None or seen != self._seen)
            and self._newest is not None
            and self._manifest() != self._newest
        ):
            self._newest = None
        self._answer(self._ended)
        self._start, self._ended = self._newest, None
        self.spent_s += time.perf_counter() - started

    def _answer(self, turn: int) -> None:
        if self._start is None or self._newest is None:
            self.answers[turn] = (OracleAnswer.UNSTEADY, "")
        elif self._start == self._newest:
            self.answers[turn] = (OracleAnswer.SAME, "")
        else:
            difference = oracle.describe_difference(self._start, self._newest, _SHOWN)
            self.answers[turn] = (OracleAnswer.CHANGED, difference)

    def _manifest(self) -> oracle.Manifest | None:
        """The state now; None where it would not stand still."""
        try:
            return oracle.manifest(self._workspace, self._exclude)
        except (oracle.Unsteady, FileNotFoundError, NotADirectoryError):
            return None


def _signature(top: str) -> Signature | None:
    """The times of everything below `top`; None where it cannot be walked by path."""
    found: Signature = {}
    todo = [top]
    try:
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    found[entry.path] = (
                        info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
                    )  # fmt: skip
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
    except OSError:
        return None
    return found
