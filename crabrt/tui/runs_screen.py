"""The screen of all runs: one line a run, families as trees, live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from crabrt.timeline import amounts
from crabrt.timeline.runs import Placed, RunItem, Runs
from crabrt.timeline.runs_feed import RunsFeed
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Tone
from crabrt.tui.copying import Copying
from crabrt.tui.following import Arrived, Follower
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.line_list import LineList
from crabrt.tui.lines_widget import Lines
from crabrt.tui.pieces import Line, Piece, aligned, cut, fit, sign_piece
from crabrt.tui.sources import Source
from crabrt.tui.timeline_screen import TimelineScreen

_GAP = Piece("  ")


class RunsView(LineList[str]):
    """The runs of a store as a list of lines."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(id=id)
        self.runs = Runs()
        self._listed: tuple[Placed, ...] = ()
        self._keys: tuple[str, ...] = ()
        self._places: dict[str, int] = {}

    def show(self, runs: Runs) -> None:
        """Draw a new state."""
        self.runs = runs
        self._listed = runs.listed()
        self._keys = tuple(placed.item.run for placed in self._listed)
        self._places = {run: place for place, run in enumerate(self._keys)}
        self.lay_out()

    def head(self) -> Line:
        """The titles of the columns."""
        return run_line_head(self.cells)

    @property
    def keys(self) -> Sequence[str]:
        """The ids of the runs, from top to bottom."""
        return self._keys

    def place_of(self, key: str) -> int | None:
        """See `LineList.place_of`."""
        return self._places.get(key)

    def line_at(self, at: int) -> tuple[Line, str | None]:
        """See `LineList.line_at`."""
        if at >= len(self._listed):
            return (), None
        placed = self._listed[at]
        return run_line(placed, self.cells), placed.item.run


class RunsScreen(Copying, Screen[None]):
    """See the module."""

    DEFAULT_CSS = """
    RunsScreen #title { padding: 0 1; background: $panel; }
    RunsScreen #columns { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the id of the run"),
    ]

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self._follower: Follower[Runs] | None = None

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Lines(self._title, height=1, id="title")
        yield Lines(lambda _: [self.view.head()], height=1, id="columns")
        yield RunsView(id="runs")
        yield KeyBar()

    def on_mount(self) -> None:
        """Begin to follow."""
        self._follower = Follower(RunsFeed(self.source.home), self, "feed of the runs")
        self.view.focus()

    def on_unmount(self) -> None:
        """Follow no more."""
        if self._follower is not None:
            self._follower.stop()

    @property
    def view(self) -> RunsView:
        """The list."""
        return self.query_one("#runs", RunsView)

    @on(Arrived)
    def take(self) -> None:
        """Show the latest state."""
        states = self._follower.take() if self._follower is not None else []
        if states:
            self.view.show(states[-1])
        for lines in self.query(Lines):
            lines.again()

    @on(LineList.Opened)
    def open_run(self) -> None:
        """The run under the cursor."""
        if self.view.key is not None:
            self.app.push_screen(TimelineScreen(self.source, self.view.key))

    def action_copy(self) -> None:
        """Copy the id of the run under the cursor."""
        if self.view.key is not None:
            self.copy(self.view.key)

    def _title(self, width: int) -> list[Line]:
        runs = self.view.runs
        if runs.problem is not None:
            return [cut((Piece("! " + safe_text(runs.problem.message), Tone.BAD),), width)]
        live = sum(item.live for item in runs.items)
        found = [Piece(amounts.count(len(runs.items), "run"), strong=True)]
        if live:
            found.append(Piece(f"  ▶ {live} running", Tone.GOOD))
        if not runs.items and runs.revision:
            found.append(Piece("  none yet: wrap a loop with @crabrt.agent, or try `crab demo`"))
        home = Piece(f"  {safe_path(str(self.source.home).encode())}", Tone.QUIET)
        return [cut((*found, home), width)]


def run_line_head(width: int) -> Line:
    """The titles over `run_line`."""
    name, place, _ = _widths(width)
    titles = (fit("run", name), fit("state", 11), fit("turns", 6, right=True))
    return cut(
        (Piece("  ".join((*titles, fit("safe", 4), fit("last", 16), fit("workspace", place)))),),
        width,
    )


def run_line(placed: Placed, width: int) -> Line:
    """A run on a line: its place in the family, how it is, what it does, where it works."""
    item = placed.item
    name, place, _ = _widths(width)
    branches = "".join("│ " if more else "  " for more in placed.above[1:])
    if placed.depth:
        branches += "└ " if placed.last else "├ "
    named = (Piece(branches, Tone.QUIET), Piece(safe_text(item.run), strong=item.live))
    safe = () if item.protection is None else (sign_piece(item.protection, word=False),)
    cells = (
        aligned(named, name),
        aligned((sign_piece(item.sign),), 11),
        (Piece(fit(str(item.row.turns), 6, right=True)),),
        aligned(safe, 4),
        (Piece(fit(amounts.clock(item.row.updated_ns), 16), Tone.QUIET),),
        aligned(_doing(item), place),
    )
    found: list[Piece] = []
    for cell in cells:
        found += [_GAP, *cell] if found else cell
    return cut(found, width)


def _doing(item: RunItem) -> Line:
    """What it does right now, then where."""
    home_dir, workspace = str(Path.home()), safe_path(item.row.workspace)
    if workspace.startswith(home_dir + "/"):
        workspace = "~" + workspace[len(home_dir) :]
    calls = ", ".join(safe_text(call.model or call.name) for call in item.open_calls)
    if not calls:
        return (Piece(workspace, Tone.QUIET),)
    return (Piece(f"{workspace}  ", Tone.QUIET), Piece(calls, Tone.NEWS))


def _widths(width: int) -> tuple[int, int, int]:
    """Cells for the run's id, and for where it works."""
    name = min(36, max(14, width // 4))
    used = name + 11 + 6 + 4 + 16 + 5 * cell_len(_GAP.text)
    return name, max(0, width - used), used
