"""A question with a line to answer it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from crabrt.tui.key_bar import KeyBar


class AskScreen(ModalScreen[str | None]):
    """Gives what was typed; None if it was left."""

    DEFAULT_CSS = """
    AskScreen { align: center middle; }
    AskScreen Vertical {
        width: 80; max-width: 96%; height: auto; border: round $primary; background: $surface;
        padding: 0 1;
    }
    AskScreen Label { width: 100%; }
    AskScreen Input { border: none; height: 1; padding: 0; background: $panel; margin: 1 0; }
    AskScreen #wrong { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]

    def __init__(
        self, question: str, initial: str = "", *, wrong: Callable[[str], str] | None = None
    ) -> None:
        """Args: question: what is asked; initial: in the line; wrong: why an answer is none."""
        super().__init__()
        self._question = question
        self._initial = initial
        self._wrong = wrong

    def compose(self) -> ComposeResult:
        """The widgets."""
        with Vertical():
            yield Label(self._question, markup=False)
            yield Input(self._initial, compact=True)
            yield Label("", id="wrong", markup=False)
        yield KeyBar()

    @on(Input.Submitted)
    def answered(self, event: Input.Submitted) -> None:
        """Give it, if it is an answer."""
        event.stop()
        wrong = self._wrong(event.value) if self._wrong is not None else ""
        if wrong:
            self.query_one("#wrong", Label).update(wrong)
        else:
            self.dismiss(event.value)

    def action_leave(self) -> None:
        """No answer."""
        self.dismiss(None)
