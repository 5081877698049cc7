"""What differs between the states after two turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from crabrt.timeline.reader import Changes, RunReader
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.timeline import Timeline
from crabrt.tui import deeds
from crabrt.tui.changes_view import ChangesView
from crabrt.tui.copying import Copying
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.lines_widget import Lines
from crabrt.tui.pieces import Line, Piece, cut
from crabrt.tui.sources import Source


class CompareScreen(Copying, Screen[None]):
    """See the module; the turn that came first is on the left, whichever was marked."""

    DEFAULT_CSS = "CompareScreen #title { padding: 0 1; background: $panel; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", show=False, tooltip="Copy RUN@TURN:PATH, of the later turn"),
        Binding("escape,left", "leave", "Back"),
    ]

    def __init__(
        self, source: Source, state: Callable[[], Timeline], turns: tuple[int, int]
    ) -> None:
        """Args: where to read; gives the run as it is now; the numbers of the turns."""
        super().__init__()
        self.source = source
        self._state = state
        self._before, self._after = sorted(turns)

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Lines(self._title, height=1, id="title")
        yield ChangesView(lambda: self.source.reader(self._state().run))
        yield KeyBar()

    def on_mount(self) -> None:
        """Compare."""
        view = self.query_one(ChangesView)
        view.compare(self._compare)
        view.paths.focus()

    def action_copy(self) -> None:
        """Copy the name of the path under the cursor, in the later turn."""
        change = self.query_one(ChangesView).paths.change
        path = None if change is None else change.path
        self.copy(deeds.target(self._state().run, self._after, path))

    def action_leave(self) -> None:
        """From the patch back to the paths; from there to the timeline."""
        paths = self.query_one(ChangesView).paths
        if paths.has_focus:
            self.dismiss()
        else:
            paths.focus()

    def _compare(self, reader: RunReader) -> Changes:
        rows = self._state().rows
        before, after = rows.at(self._before), rows.at(self._after)
        if before is None or after is None:
            return Changes(why_not="one of the turns is gone")
        return reader.compare(before.view, after.view)

    def _title(self, width: int) -> list[Line]:
        run = safe_text(self._state().run)
        text = f"from {run}@{self._before} to @{self._after}"
        return [cut((Piece(text, strong=True),), width)]
