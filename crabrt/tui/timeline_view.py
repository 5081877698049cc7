"""The timeline as a widget: a line a turn, marks between them, and what goes on now at the end.

It stays at the newest turn while the cursor is there.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence

from textual.message import Message

from crabrt.timeline.marks import Mark
from crabrt.timeline.rows import Row
from crabrt.timeline.signs import Tone
from crabrt.timeline.timeline import Timeline
from crabrt.tui.line_list import LineList
from crabrt.tui.lines import Layout, Scale, activity_line, layout, mark_line
from crabrt.tui.pieces import Line, Piece, fit

_OUTLIERS = 0.02  # bars of so many turns may go beyond the scale
_SCALE_LEAST_US = 10_000


class TimelineView(LineList[int]):
    """See the module.

    Attributes:
        state: what is shown.
        wanted: the numbers of the turns that are shown; None: all.
    """

    class Resized(Message):
        """It has another width, so other columns."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(follows=True, id=id)
        self.state = Timeline("")
        self.wanted: tuple[int, ...] | None = None
        self._page = 0
        self._layout = Layout(0, ())
        self._scale = Scale()
        self._marks: tuple[Mark, ...] = ()
        self._mark_lines: list[int] = []

    # -- what is shown -----------------------------------------------------------------------

    def show(self, state: Timeline) -> None:
        """Draw a new state."""
        self.state = state
        self._scale = _scale_of(state)
        self.lay_out()

    def only(self, numbers: Sequence[int] | None) -> None:
        """Show only these turns (ascending), without marks; None: all."""
        self.wanted = None if numbers is None else tuple(numbers)
        self.lay_out()

    @property
    def row(self) -> Row | None:
        """The turn under the cursor."""
        return None if self.key is None else self.state.rows.at(self.key)

    def lay_out(self) -> None:
        """See `LineList.lay_out`."""
        self._layout = layout(self.cells, self._scale, self._page)
        self._marks = self.state.marks if self.wanted is None else ()
        self._mark_lines = [
            bisect.bisect_right(self.keys, mark.after) + at for at, mark in enumerate(self._marks)
        ]
        super().lay_out()

    def on_resize(self) -> None:
        """Another width has room for other columns."""
        super().on_resize()
        self.post_message(self.Resized())

    def head(self) -> Line:
        """The titles of the columns, for a line above."""
        return self._layout.head()

    @property
    def page(self) -> int:
        """Which of the pages of columns is shown."""
        return self._page % self._layout.pages

    @property
    def pages(self) -> int:
        """How many pages the columns make at this width."""
        return self._layout.pages

    def turn_page(self) -> None:
        """Show the columns that there was no room for; after the last of them the first ones."""
        self._page = (self._page + 1) % self._layout.pages
        self.lay_out()

    def tick(self) -> None:
        """A second has gone by: draw what counts seconds."""
        if self.state.activity is not None:
            self.refresh_line(self.line_count - 1)

    # -- as a list ---------------------------------------------------------------------------

    @property
    def keys(self) -> Sequence[int]:
        """The numbers of the turns that are shown, ascending."""
        return self.state.rows.numbers if self.wanted is None else self.wanted

    @property
    def line_count(self) -> int:
        """Turns, marks, and what goes on now."""
        return len(self.keys) + len(self._marks) + (self.state.activity is not None)

    def place_of(self, key: int) -> int | None:
        """See `LineList.place_of`."""
        place = bisect.bisect_left(self.keys, key)
        return place if place < len(self.keys) and self.keys[place] == key else None

    def place_near(self, key: int) -> int:
        """The turn behind one that is not shown any more."""
        return bisect.bisect_left(self.keys, key)

    def line_of(self, place: int) -> int:
        """The line of a turn: the marks in front of it stand above."""
        above = range(len(self._mark_lines))
        return place + bisect.bisect_right(
            above, place, key=lambda index: self._mark_lines[index] - index
        )

    def line_at(self, at: int) -> tuple[Line, int | None]:
        """See `LineList.line_at`."""
        width = self.cells
        index = bisect.bisect_left(self._mark_lines, at)
        if index < len(self._mark_lines) and self._mark_lines[index] == at:
            return mark_line(self._marks[index], width), None
        place = at - index
        if place < len(self.keys):
            number = self.keys[place]
            row = self.state.rows.at(number)
            if row is None:  # a power cut took it while its line was shown
                return (Piece(fit(str(number), 6, right=True), Tone.QUIET),), number
            return self._layout.row(row), number
        activity = self.state.activity
        if place == len(self.keys) and activity is not None:
            return activity_line(activity, time.time_ns(), width, self._scale), None
        return (), None


def _scale_of(state: Timeline) -> Scale:
    """A scale on which the bars of nearly all turns fit."""
    rows = state.rows
    sums = sorted(
        figures.model_us + figures.tool_us for figures in map(rows.figures, range(len(rows)))
    )
    full_us = sums[max(0, int(len(sums) * (1 - _OUTLIERS)) - 1)] if sums else 0
    return Scale(max(_SCALE_LEAST_US, full_us) / 1e3)
