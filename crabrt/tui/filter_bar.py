"""The line in which people type which turns they want to see."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from crabrt.errors import UsageError
from crabrt.timeline.filtering import Filter, parse_filter
from crabrt.timeline.safe_text import safe_text

_EXAMPLES = "text  tool:sh  path:src/  verdict:files  unprotected  failed  labelled"


class FilterBar(Horizontal):
    """Asks for a filter; hidden until `ask`. An empty one means all turns."""

    DEFAULT_CSS = """
    FilterBar { height: 1; display: none; background: $panel; }
    FilterBar.-shown { display: block; }
    FilterBar Label { width: auto; padding: 0 1; }
    FilterBar #sign { color: $text-accent; }
    FilterBar #said { color: $text-warning; max-width: 50%; }
    FilterBar Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "Show all turns"),
        Binding("down", "leave", "To the turns", show=False),
    ]

    class Wanted(Message):
        """Another filter. None: all turns; `left`: the person has finished typing."""

        def __init__(self, wanted: Filter | None, *, left: bool) -> None:
            super().__init__()
            self.wanted = wanted
            self.left = left

    def __init__(self) -> None:
        super().__init__()
        self._complains = False  # of what was typed

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Label("/", id="sign")
        yield Input(placeholder=_EXAMPLES, id="typed", compact=True)
        yield Label("", id="said", markup=False)

    def ask(self) -> None:
        """Show the line and put the cursor into it."""
        self.add_class("-shown")
        self.query_one(Input).placeholder = _EXAMPLES
        self.query_one(Input).focus()

    def name_it(self, text: str) -> None:
        """Show the line with something else than a filter that is shown; `ask` or esc end it."""
        self.add_class("-shown")
        with self.prevent(Input.Changed):
            self.query_one(Input).value = ""
        self.query_one(Input).placeholder = text

    def say(self, text: str) -> None:
        """Something beside what was typed: how many turns, or what is wrong."""
        self.query_one("#said", Label).update(safe_text(text))

    @on(Input.Changed)
    def changed(self, event: Input.Changed) -> None:
        """A letter more or less."""
        event.stop()
        self._tell(event.value, left=False)

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        """Finished."""
        event.stop()
        self._tell(event.value, left=True)
        if not event.value.strip():
            self.remove_class("-shown")

    def action_give_up(self) -> None:
        """All turns again."""
        with self.prevent(Input.Changed):
            self.query_one(Input).value = ""
        self.remove_class("-shown")
        self.post_message(self.Wanted(None, left=True))

    def action_leave(self) -> None:
        """To the turns, with the filter as it is."""
        self._tell(self.query_one(Input).value, left=True)

    def _tell(self, text: str, *, left: bool) -> None:
        try:
            wanted = parse_filter(text)
        except UsageError as error:
            self.say(f"{error.message} ({error.hint})" if error.hint else error.message)
            self._complains = True
            return
        if self._complains:
            self._complains = False
            self.say("")
        self.post_message(self.Wanted(wanted if text.strip() else None, left=left))
