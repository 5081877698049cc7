"""The state of one run's timeline at a moment: what every face draws from. Frozen throughout."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from crabrt.journal.inbox import Marks
from crabrt.journal.rows import Problem
from crabrt.journal.views import RUNNING, RunView
from crabrt.timeline.marks import Mark
from crabrt.timeline.rows import OpenCall
from crabrt.timeline.signs import Sign, run_sign
from crabrt.timeline.table import Rows
from crabrt.timeline.totals import Figures

GONE = "gone"
"""The state of a run that was deleted while it was shown."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a journal has been read, while it has not been read to its end yet.

    Attributes:
        done_bytes, total_bytes: of its segments.
    """

    done_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0


@dataclass(frozen=True, slots=True)
class Activity:
    """What a live run does right now.

    Attributes:
        turn: the turn it is in.
        calls: the calls that go on, the oldest first; none: the loop's own code runs.
        since_ns: wall clock when the oldest of them began, or when the last entry was written.
    """

    turn: int
    calls: tuple[OpenCall, ...]
    since_ns: int

    @property
    def kind(self) -> str:
        """``tool`` if any tool runs, else ``model`` if a model is waited for, else ``loop``."""
        if not self.calls:
            return "loop"
        return "model" if all(call.asks_model for call in self.calls) else "tool"


NO_FIGURES = Figures()
EMPTY_ROWS = Rows((), RunView(), Marks(), live=False)


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run at one moment.

    Attributes:
        run: its id, as it was asked for.
        view: the run: name, workspace, argv, lineage, failure, when it started, its latest entry.
        state: ``running``, ``waiting`` (for a decision), ``done``, ``failed``, ``crashed``,
            ``ended`` (without its last words), ``forked`` (never taken up), ``damaged``, ``gone``;
            empty while nothing has been read.
        rows: its turns.
        marks: what stands between them, in order.
        totals: what the turns come to.
        labels: label to (turn, inner).
        activity: what it does now; None unless it is live.
        reading: how far its journal is read, until that is done; then None.
        problems: what is broken or cannot be read; what could be is shown all the same.
        changed: numbers of the turns that are not as in the state before; None: any may differ.
        revision: grows with every state.
    """

    run: str
    view: RunView = field(default_factory=RunView)
    state: str = ""
    rows: Rows = EMPTY_ROWS
    marks: tuple[Mark, ...] = ()
    totals: Figures = NO_FIGURES
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    activity: Activity | None = None
    reading: Reading | None = None
    problems: tuple[Problem, ...] = ()
    changed: frozenset[int] | None = None
    revision: int = 0

    @property
    def live(self) -> bool:
        """Whether a process works on it."""
        return self.state == RUNNING

    @property
    def gone(self) -> bool:
        """Whether it was deleted; what was read of it is still here."""
        return self.state == GONE

    @property
    def sign(self) -> Sign:
        """How it is, as shape, word and tone."""
        return run_sign(self.state)

    def marks_after(self, number: int) -> tuple[Mark, ...]:
        """What happened between the turn with that number and the next one."""
        first = bisect.bisect_left(self.marks, number, key=lambda mark: mark.after)
        last = bisect.bisect_right(self.marks, number, lo=first, key=lambda mark: mark.after)
        return self.marks[first:last]
