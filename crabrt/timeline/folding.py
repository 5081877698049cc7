"""The fold of journal entries into a timeline: pure, incremental, and as cheap as what is new.

It is `journal.History` with the turns packed and their figures summed. Nothing is decoded but the
entries: no message, argument or output is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crabrt.journal.history import History
from crabrt.journal.inbox import Marks
from crabrt.journal.index import Folded
from crabrt.journal.reading import Position, Record
from crabrt.journal.rows import Problem
from crabrt.journal.views import RunView, TurnView
from crabrt.timeline.marks import Mark, marks_of_moves, placed
from crabrt.timeline.rows import open_calls
from crabrt.timeline.runs import state_of_view
from crabrt.timeline.table import Packed, Rows
from crabrt.timeline.timeline import Activity, Reading, Timeline
from crabrt.timeline.totals import Figures


class Folding:
    """A timeline in the making. Feed it the entries of one journal in order; ask for `timeline`.

    Args:
        run: the id of the run.
        folded: where the run index stands, to go on from there; it must be the caller's own.

    Attributes:
        marks: what the run's inbox comes to.
        relatives, restores: marks that the journal does not tell (see `timeline.marks`).
        status: how the run is, as its lease and journal say (see `RunRow.status`).
        problems: what is broken.
    """

    def __init__(self, run: str, folded: Folded | None = None) -> None:
        self.run = run
        self.marks = Marks() if folded is None else folded.marks
        self.relatives: Sequence[Mark] = ()
        self.restores: Sequence[Mark] = ()
        self.status = ""
        self.problems: tuple[Problem, ...] = ()
        self._turns: list[Packed] = []
        self._moves: dict[int, list[Mark]] = {}
        self._totals = Figures()
        self._touched: set[int] | None = None  # None: all of them
        self._newest: TurnView | None = None
        state = None if folded is None else folded.state
        self._history = History(state=state, load=self._load)
        if folded is not None:
            self._turns = [Packed.again(data) for data in folded.turns]
            self._totals = Figures.sum_of(turn.figures for turn in self._turns)
            self._moves = {
                turn.number: marks_of_moves(turn.number, turn.view.moves)
                for turn in self._turns
                if turn.figures.moves
            }
        self._note_newest()

    @property
    def view(self) -> RunView:
        """The run so far."""
        return self._history.run

    @property
    def after(self) -> Position | None:
        """The place behind the last entry taken in."""
        return self._history.state.after

    def feed(self, records: Iterable[Record]) -> int:
        """Take in further entries; how many there were.

        Raises:
            DamagedJournal: they contradict themselves. Entries before the bad one are taken in.
            And whatever `records` raises.
        """
        count = 0
        try:
            for record in records:
                self._history.feed(record)
                count += 1
        finally:
            self._take(self._history.take_changed())
        return count

    def take_marks(self, marks: Marks) -> None:
        """What the run's inbox comes to by now: labels, pins, files given up, of any turns."""
        if marks != self.marks:
            self.marks = marks
            self._touched = None

    def timeline(self, *, reading: Reading | None = None, revision: int = 0) -> Timeline:
        """The state now. `changed` names the turns that changed since this was last asked for."""
        view, live = self.view, self.status == "running"
        rows = Rows(self._turns, view, self.marks, live=live)
        moves = [mark for number in self._moves for mark in self._moves[number]]
        changed = None if self._touched is None else frozenset(self._touched)
        self._touched = set()
        return Timeline(
            self.run,
            view,
            state_of_view(self.status, view),
            rows,
            placed([*moves, *self.relatives, *self.restores], rows),
            self._totals,
            self.marks.merged_labels(view.labels),
            self._activity() if live else None,
            reading,
            self.problems,
            changed,
            revision,
        )

    def _activity(self) -> Activity:
        newest = self._newest
        calls = () if newest is None else open_calls(newest)
        since_ns = calls[0].since_ns if calls else 0
        return Activity(self.view.turn, calls, since_ns or self.view.updated_ns)

    def _place(self, number: int) -> int:
        """Where the turn is, or would be. Nearly always it is one of the last."""
        place = len(self._turns)
        while place and self._turns[place - 1].number >= number:
            place -= 1
        return place

    def _load(self, number: int) -> TurnView | None:
        place = self._place(number)
        if place < len(self._turns) and self._turns[place].number == number:
            return self._turns[place].view
        return None

    def _take(self, changed: dict[int, TurnView | None]) -> None:
        for number, view in changed.items():
            place = self._place(number)
            known = place < len(self._turns) and self._turns[place].number == number
            if known:
                self._totals -= self._turns[place].figures
            self._moves.pop(number, None)
            if view is None:
                if known:
                    del self._turns[place]
            else:
                packed = Packed.of(view)
                self._totals += packed.figures
                self._turns[place : place + known] = [packed]
                if view.moves:
                    self._moves[number] = marks_of_moves(number, view.moves)
            if self._touched is not None:
                self._touched.add(number)
        self._note_newest()

    def _note_newest(self) -> None:
        self._newest = self._turns[-1].view if self._turns else None
