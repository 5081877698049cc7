"""The screen of one run: its head, its timeline, a line for filters."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import get_current_worker

from crabrt.timeline import amounts
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.filtering import Filter
from crabrt.timeline.rows import Row
from crabrt.timeline.timeline import Timeline
from crabrt.tui.background import in_thread
from crabrt.tui.doing import DOING_BINDINGS, Doing
from crabrt.tui.filter_bar import FilterBar
from crabrt.tui.finding import FilterFinder, Finder, Fitting, TouchFinder
from crabrt.tui.following import Arrived, Follower
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.line_list import LineList
from crabrt.tui.lines_widget import Lines
from crabrt.tui.pieces import Line
from crabrt.tui.sources import Source
from crabrt.tui.summary import summary_lines
from crabrt.tui.text_view import TextView
from crabrt.tui.timeline_view import TimelineView

_PACE_S = 0.1
_REST_S = 0.08  # a cursor that moves on sooner is only passing by
_AGAIN_S = 1.0  # a turn that goes on is shown anew so often


class TimelineScreen(Doing, Screen[None]):
    """See the module. It follows its run from when it is mounted until it is left."""

    DEFAULT_CSS = """
    TimelineScreen #summary { padding: 0 1; background: $panel; }
    TimelineScreen #columns { background: $surface; }
    TimelineScreen #preview { display: none; width: 40%; border-left: solid $panel; padding: 0 1; }
    TimelineScreen.-wide #preview { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (160, "-wide")]  # noqa: RUF012 - so Textual has it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find"),
        Binding("v", "columns", "More", tooltip="The columns that there is no room for"),
        Binding("t", "touched", "Touched by", show=False, tooltip="Which turns changed a path?"),
        Binding("m", "mark", "Mark", show=False, tooltip="Mark the turn, to compare with it"),
        Binding(
            "c",
            "compare",
            "Compare",
            show=False,
            tooltip="Compare with the marked turn, or the one before",
        ),
        *DOING_BINDINGS,
        Binding("escape,left", "leave", "Back"),
    ]

    def __init__(self, source: Source, run: str, at: int | None = None) -> None:
        """Args: where to read; the run's id; the turn to put the cursor on."""
        super().__init__()
        self.source = source
        self.run_id = run
        self._at = at
        self._follower: Follower[Timeline] | None = None
        self._wanted: Filter | None = None
        self._finder: Finder | None = None
        self._previewing: Timer | None = None
        self._taking: Timer | None = None
        self._taken_s = 0.0

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Lines(self._summary, height=3, id="summary")
        yield Lines(lambda _: [self.timeline.head()], height=1, id="columns")
        with Horizontal():
            yield TimelineView(id="timeline")
            yield TextView(id="preview")
        yield FilterBar()
        yield KeyBar()

    def on_mount(self) -> None:
        """Begin to follow."""
        self._follower = Follower(
            RunFeed(self.source.home, self.run_id), self, f"feed of {self.run_id}"
        )
        self.set_interval(1.0, self._tick)
        self.timeline.focus()

    def on_unmount(self) -> None:
        """Follow no more."""
        if self._follower is not None:
            self._follower.stop()

    @property
    def timeline(self) -> TimelineView:
        """The list of turns."""
        return self.query_one("#timeline", TimelineView)

    @property
    def state(self) -> Timeline:
        """The latest state."""
        return self.timeline.state

    @property
    def timeline_now(self) -> Timeline:
        """See `Doing`."""
        return self.state

    @property
    def row_here(self) -> Row | None:
        """See `Doing`."""
        return self.timeline.row

    @on(Arrived)
    def arrived(self) -> None:
        """Show the latest state, now or soon: a run that is fast is drawn ten times a second."""
        if self._taking is None:
            wait_s = self._taken_s + _PACE_S - time.monotonic()
            if wait_s > 0:
                self._taking = self.set_timer(wait_s, self.take)
            else:
                self.take()

    def take(self) -> None:
        """Show the latest state."""
        self._taking, self._taken_s = None, time.monotonic()
        states = self._follower.take() if self._follower is not None else []
        if not states:
            return
        self.timeline.show(states[-1])
        if self._at is not None and self.timeline.go_to(self._at):
            self._at = None
        for lines in self.query(Lines):
            lines.again()
        changed = any(s.changed is None or self.timeline.key in s.changed for s in states)
        if changed and self._previewing is None:
            self.preview(_AGAIN_S)
        if self._finder is not None:
            self._finder.changed(states)
            self._find()

    @on(LineList.Opened)
    def open_turn(self) -> None:
        """The turn under the cursor in full."""
        from crabrt.tui.turn_screen import TurnScreen  # noqa: PLC0415 - first paint does not need it

        if self.timeline.key is not None:
            turn = TurnScreen(self.source, lambda: self.state, self.timeline.key)
            self.app.push_screen(turn, self._back_from)

    @on(LineList.Moved)
    def moved(self) -> None:
        """Another turn is under the cursor."""
        self.preview(_REST_S)

    def preview(self, after_s: float) -> None:
        """Show the turn under the cursor beside the timeline, in a moment."""
        if self._previewing is not None:
            self._previewing.stop()
        if self.query_one("#preview", TextView).display:
            self._previewing = self.set_timer(after_s, self._preview)

    def _preview(self) -> None:
        self._previewing = None
        row = self.timeline.row
        lines = iter(()) if row is None else self._preview_lines(row)
        self.query_one("#preview", TextView).show(lines)

    def _preview_lines(self, row: Row) -> Iterator[Line]:
        from crabrt.tui.turn_text import preview  # noqa: PLC0415 - it reads the store

        yield from preview(self.source.reader(self.state.run), row)

    def _back_from(self, number: int | None) -> None:
        if number is not None:
            self.timeline.go_to(number)

    def action_mark(self) -> None:
        """Mark the turn under the cursor; again: no longer."""
        view = self.timeline
        view.mark(None if view.marked == view.key else view.key)

    def action_compare(self) -> None:
        """What differs between the marked turn, or the one before, and this one."""
        from crabrt.tui.compare_screen import CompareScreen  # noqa: PLC0415 - nor this one

        view = self.timeline
        if view.row is None:
            return
        other = view.row.view.base if view.marked is None else view.marked
        turns = (other, view.row.number)
        self.app.push_screen(CompareScreen(self.source, lambda: self.state, turns))

    def action_columns(self) -> None:
        """Show the columns that there was no room for."""
        self.timeline.turn_page()
        for lines in self.query(Lines):
            lines.again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There are more columns only where the terminal is narrow."""
        del parameters
        return action != "columns" or self.timeline.pages > 1

    # -- filters -----------------------------------------------------------------------------

    def action_find(self) -> None:
        """Ask which turns are wanted."""
        self.query_one(FilterBar).ask()

    @on(FilterBar.Wanted)
    def want(self, message: FilterBar.Wanted) -> None:
        """Show only the turns that fit, as they are found."""
        if message.left:
            self.timeline.focus()
        if message.wanted == self._wanted and (message.wanted or self._finder is None):
            return
        self._wanted = message.wanted
        self._finder = None
        if message.wanted is None:
            self.timeline.only(None)
            return
        self._finder = FilterFinder(self.source, self.state, message.wanted)
        self._find()

    def action_touched(self) -> None:
        """Ask for a path, and show the turns that changed it."""
        from crabrt.tui.ask_screen import AskScreen  # noqa: PLC0415 - first paint does not need it

        self.app.push_screen(AskScreen("Which path? (relative to the workspace)"), self.touched)

    def touched(self, path: str | None) -> None:
        """Show only the turns that changed a path."""
        if path:
            self._wanted = None
            self._finder = TouchFinder(self.source, os.fsencode(path))
            self.query_one(FilterBar).name_it(f"touched {path}")
            self._find()

    def _find(self) -> None:
        """Go on finding, in a thread: one at a time."""
        finder = self._finder
        if finder is not None:
            in_thread(self, functools.partial(self._finding, finder), group="find", exclusive=True)

    def _finding(self, finder: Finder) -> None:
        worker = get_current_worker()
        fitting = Fitting()
        while not (fitting.done or worker.is_cancelled):
            fitting = finder.step(self.state)
            self.app.call_from_thread(self._show_found, finder, fitting)

    def _show_found(self, finder: Finder, fitting: Fitting) -> None:
        if finder is not self._finder:
            return
        if self.timeline.wanted != fitting.numbers:
            self.timeline.only(fitting.numbers)
        found = amounts.count(len(fitting.numbers), "turn")
        if not fitting.done:
            found += " so far"
        if fitting.missed:
            found += f"; {amounts.count(fitting.missed, 'turn')} could not be looked through"
        self.query_one(FilterBar).say(fitting.problem or found)

    # -- drawing -----------------------------------------------------------------------------

    def _summary(self, width: int) -> list[Line]:
        return summary_lines(self.state, width, str(Path.home()), self.timeline.page)

    def _tick(self) -> None:
        if self.state.live:
            self.timeline.tick()
            self.query_one("#summary", Lines).again()

    @on(TimelineView.Resized)
    def resized(self) -> None:
        """The columns are others, and perhaps all of them."""
        self.refresh_bindings()
        self.query_one("#columns", Lines).again()
        self.preview(_REST_S)

    def action_leave(self) -> None:
        """All turns again; if all are shown, back to where one came from."""
        if self._finder is None:
            self.dismiss()
        else:
            self.query_one(FilterBar).action_give_up()
