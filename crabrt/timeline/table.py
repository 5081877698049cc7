"""The rows of a timeline: an immutable sequence that keeps turns packed and makes rows when asked.

A run of 10,000 turns is some 30 MB as objects and 7 MB packed; a screen shows fifty of them. So a
turn is kept as the bytes that the run index would store, with what all turns are asked for (number,
start, figures) beside them.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import overload

import msgspec

from crabrt.journal.inbox import Marks
from crabrt.journal.lookup import with_marks
from crabrt.journal.rows import pack_turn, unpack_turn
from crabrt.journal.views import RunView, TurnView
from crabrt.timeline.rows import Row, took_ms
from crabrt.timeline.totals import Figures, Series, series

_WINDOW = 256


class Packed(msgspec.Struct, frozen=True, gc=False):
    """One turn, packed.

    Attributes:
        number: of the turn.
        started_ns: when it began.
        data: the encoded `TurnView`, without marks from the inbox.
        figures: what of it adds up.
    """

    number: int
    started_ns: int
    data: bytes
    figures: Figures

    @classmethod
    def of(cls, view: TurnView) -> Packed:
        """`view`, packed."""
        return cls(view.turn, view.started_ns, pack_turn(view), Figures.of(view))

    @classmethod
    def again(cls, data: bytes) -> Packed:
        """A turn that is packed already.

        Raises:
            Rotten: it is none.
        """
        view = unpack_turn(data)
        return cls(view.turn, view.started_ns, data, Figures.of(view))

    @property
    def view(self) -> TurnView:
        """The turn again."""
        return unpack_turn(self.data)


class Rows(Sequence[Row]):
    """See the module. Indexed by place; `at` finds a turn by its number.

    Slicing gives a list of rows; going through all of them holds a window at a time.
    """

    __slots__ = ("_live", "_marks", "_numbers", "_run", "_turns")

    def __init__(self, turns: Sequence[Packed], run: RunView, marks: Marks, *, live: bool) -> None:
        self._turns = tuple(turns)
        self._numbers = tuple(turn.number for turn in self._turns)
        self._run = run
        self._marks = marks
        self._live = live

    def __len__(self) -> int:
        return len(self._turns)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return self._rows(range(*index.indices(len(self._turns))))
        return self._rows([range(len(self._turns))[index]])[0]

    def __iter__(self) -> Iterator[Row]:
        for at in range(0, len(self._turns), _WINDOW):
            yield from self[at : at + _WINDOW]

    def __reversed__(self) -> Iterator[Row]:
        for end in range(len(self._turns), 0, -_WINDOW):
            yield from reversed(self[max(0, end - _WINDOW) : end])

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the turns, ascending; a turn that was never journalled has none."""
        return self._numbers

    def place_of(self, number: int) -> int | None:
        """The place of the turn with that number; None if it has no row."""
        place = bisect.bisect_left(self._numbers, number)
        found = place < len(self._numbers) and self._numbers[place] == number
        return place if found else None

    def at(self, number: int) -> Row | None:
        """The row of the turn with that number; None if it has none."""
        place = self.place_of(number)
        return None if place is None else self[place]

    def after(self, number: int) -> Iterator[Row]:
        """The rows of the turns behind the one with that number, a window at a time."""
        for at in range(bisect.bisect_right(self._numbers, number), len(self._turns), _WINDOW):
            yield from self[at : at + _WINDOW]

    def number_at(self, wall_ns: int) -> int | None:
        """The turn that was the latest one at a moment; None: none had begun."""
        place = bisect.bisect_right(self._turns, wall_ns, key=lambda turn: turn.started_ns)
        return self._numbers[place - 1] if place else None

    def figures(self, place: int) -> Figures:
        """What of the turn at a place adds up. Cheap: its row is not made."""
        return self._turns[place].figures

    def series(self, figure: str, points: int) -> Series:
        """One of the `Figures` over all turns, in at most `points` points: ``"bytes_stored"``.

        Raises:
            AttributeError: there is no such figure.
        """
        return series((float(getattr(turn.figures, figure)) for turn in self._turns), points)

    def largest(self, figure: str) -> float:
        """The largest of one of the `Figures` over all turns, for a scale; 0 if there are none."""
        return max((float(getattr(turn.figures, figure)) for turn in self._turns), default=0.0)

    def _rows(self, places: Sequence[int]) -> list[Row]:
        views = with_marks([self._turns[at].view for at in places], self._run, self._marks)
        return [self._row(at, view) for at, view in zip(places, views, strict=True)]

    def _row(self, place: int, view: TurnView) -> Row:
        last = place + 1 == len(self._turns)
        end_ns = self._run.updated_ns if last else self._turns[place + 1].started_ns
        took = took_ms(self._run, view.started_ns, end_ns)
        return Row(view, took, self._live, newest=view.turn == self._run.turn)
