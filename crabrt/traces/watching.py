"""The oracle at the boundaries of turns: what the workspace is when one ends and the next begins.

crabrt looks at the workspace while the model thinks, a moment after the oracle did. As long as
nothing of the run is alive between two turns that is the same state. Where processes are alive, the
oracle looks again when the model has answered; if the two differ, the boundary is unsteady, and the
turns on both of its sides are judged by nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from crabrt.testing import oracle
from crabrt.traces.report import OracleAnswer

_SHOWN = 20


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
        self._start = self._newest = self._look()
        self._moving = False

    def look(self) -> None:
        """No tool runs: note the state, in case the turn is about to end."""
        self._moving = self._alive()
        self._newest = self._look()

    def settle(self, turn: int, *, ended: bool) -> None:
        """The model has answered; `ended`: its question closed `turn`."""
        if not ended:
            return
        if self._moving and self._newest is not None and self._look() != self._newest:
            self._newest = None
        self._answer(turn)
        self._start = self._newest

    def finish(self, turn: int) -> None:
        """The loop is over, and the last turn with it."""
        self.look()
        self.settle(turn, ended=True)

    def _answer(self, turn: int) -> None:
        if self._start is None or self._newest is None:
            self.answers[turn] = (OracleAnswer.UNSTEADY, "")
        elif oracle.digest_of(self._start) == oracle.digest_of(self._newest):
            self.answers[turn] = (OracleAnswer.SAME, "")
        else:
            difference = oracle.describe_difference(self._start, self._newest, _SHOWN)
            self.answers[turn] = (OracleAnswer.CHANGED, difference)

    def _look(self) -> oracle.Manifest | None:
        """The state now; None where it would not stand still."""
        started = time.perf_counter()
        try:
            return oracle.manifest(self._workspace, self._exclude)
        except (oracle.Unsteady, FileNotFoundError, NotADirectoryError):
            return None
        finally:
            self.spent_s += time.perf_counter() - started
