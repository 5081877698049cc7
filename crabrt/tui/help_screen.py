"""What the keys do, and what the signs mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label

from crabrt.timeline.signs import Tone
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.lines_widget import Lines
from crabrt.tui.looks import BAR_CSS
from crabrt.tui.pieces import Line, Piece, cut, fit

Section = tuple[str, Sequence[tuple[str, str]]]

SIGNS: Sequence[Section] = (
    (
        "What a turn did",
        (
            ("F files", "files changed (caches alone: the turn's evidence says so)"),
            ("P processes", "processes came, went or worked"),
            ("X external", "something outside, which no restore takes back"),
            ("· none", "nothing: the checkpoint before it serves"),
            ("? unknown", "it was cut off, or is not known yet"),
        ),
    ),
    (
        "How safe it is",
        (
            ("● durable", "comes back after a power cut"),
            ("◐ captured", "comes back after a crash of the agent"),
            ("○ inherited", "nothing changed, so the one before it serves"),
            ("✗ unprotected", "something of it does not come back: open the turn"),
            ("- thinned", "retention dropped its files"),
        ),
    ),
    (
        "A row",
        (
            ("░░░███", "waited for the model, then tools ran; » beyond the scale"),
            ("+3 ~2 -1", "files added, changed, removed"),
            ("held", "how long the loop waited for its own protection"),
            ("⚑ ★", "labelled, pinned"),
        ),
    ),
)


class HelpScreen(ModalScreen[None]):
    """The keys of the screen below it, and the signs."""

    DEFAULT_CSS = (
        """
    HelpScreen { align: center middle; }
    HelpScreen VerticalScroll {
        width: 84; max-width: 96%; height: 90%; border: round $primary; padding: 0 1;
        background: $surface;"""
        + BAR_CSS
        + "}"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Close"),
    ]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        """Args: keys: what the screen below understands: key, meaning."""
        super().__init__()
        self._sections: Sequence[Section] = (("Keys", keys), *SIGNS)

    def compose(self) -> ComposeResult:
        """The widgets."""
        with VerticalScroll():
            count = sum(len(rows) + 2 for _, rows in self._sections)
            yield Lines(self._lines, height=count)
            yield Label("ctrl+p: everything that can be done, by name", markup=False)
        yield KeyBar()

    def _lines(self, width: int) -> list[Line]:
        found: list[Line] = []
        for title, rows in self._sections:
            found.append((Piece(title, Tone.NEWS, strong=True),))
            found += [
                cut((Piece(fit(key, 18), strong=True), Piece(text)), width) for key, text in rows
            ]
            found.append(())
        return found
