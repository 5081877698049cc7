"""What differs between two states: the paths on one side, how one of them changed on the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.worker import get_current_worker

from crabrt.timeline.reader import Changes, RunReader
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Tone
from crabrt.tui.background import in_thread, in_words
from crabrt.tui.line_list import LineList
from crabrt.tui.pieces import Line, Piece, cut
from crabrt.tui.text_view import TextView
from crabrt.tui.turn_text import patch_lines
from crabrt.workspace import Change

Comparison = Callable[[RunReader], Changes]


class PathList(LineList[int]):
    """The paths that differ; keys are places.

    Attributes:
        changes: what is listed.
        chosen: paths to be restored together.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Choose", tooltip="Choose this path, or no longer, for R")
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(id=id)
        self.changes = Changes()
        self.chosen: set[bytes] = set()

    def show(self, changes: Changes) -> None:
        """List other paths."""
        self.changes = changes
        self.chosen.clear()
        self.key = None
        self.lay_out()

    @property
    def change(self) -> Change | None:
        """The one under the cursor."""
        return None if self.key is None else self.changes.items[self.key]

    @property
    def wanted(self) -> list[bytes]:
        """The chosen paths; if none is, the one under the cursor."""
        here = [] if self.change is None else [self.change.path]
        return sorted(self.chosen) or here

    def action_choose(self) -> None:
        """Choose the path under the cursor, or no longer, and go on to the next."""
        if self.change is not None:
            self.chosen ^= {self.change.path}
            self.redraw()
            self.action_move(1)

    @property
    def keys(self) -> Sequence[int]:
        """Places."""
        return range(len(self.changes.items))

    @property
    def line_count(self) -> int:
        """A line more where something is to be said of all of them."""
        return len(self.changes.items) + 1

    def place_of(self, key: int) -> int | None:
        """See `LineList.place_of`."""
        return key if key < len(self.changes.items) else None

    def line_at(self, at: int) -> tuple[Line, int | None]:
        """See `LineList.line_at`."""
        changes, width = self.changes, self.cells
        if at < len(changes.items):
            change = changes.items[at]
            return cut(choice(change.path in self.chosen) + change_line(change), width), at
        if at > len(changes.items):
            return (), None
        said = "... and more: `crab diff` names all" if changes.more else safe_text(changes.why_not)
        if not changes.items and not said:
            said = "no file differs"
        return cut((Piece(said, Tone.QUIET),), width), None


def choice(chosen: bool) -> Line:  # noqa: FBT001 - the one thing that it is about
    """What stands before something that can be chosen."""
    return (Piece("✓ " if chosen else "  ", Tone.WARNING, strong=True),)


def change_line(change: Change) -> Line:
    """A path, with a sign for what happened to it, and in which ways it differs."""
    if change.before is None:
        sign = Piece("+ ", Tone.GOOD, strong=True)
    elif change.after is None:
        sign = Piece("- ", Tone.BAD, strong=True)
    else:
        sign = Piece("~ ", Tone.FILES, strong=True)
    how = ", ".join(word for word in change.how if word not in {"added", "removed", "content"})
    more = Piece(f"  {how}", Tone.QUIET) if how else Piece("")
    return (sign, Piece(safe_path(change.path)), more)


class ChangesView(Horizontal):
    """Compares when it is told what; reads in threads."""

    DEFAULT_CSS = """
    ChangesView PathList { width: 1fr; max-width: 44; min-width: 20; border-right: solid $panel; }
    ChangesView TextView { width: 3fr; }
    """

    class Compared(Message):
        """A comparison is done."""

        def __init__(self, comparison: Comparison, changes: Changes) -> None:
            super().__init__()
            self.comparison = comparison
            self.changes = changes

    def __init__(self, reader: Callable[[], RunReader], *, id: str | None = None) -> None:  # noqa: A002
        """Args: reader: gives what answers about the run; called in threads."""
        super().__init__(id=id)
        self._reader = reader
        self._comparison: Comparison | None = None

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield PathList(id="paths")
        yield TextView(id="patch")

    @property
    def paths(self) -> PathList:
        """The list on the left."""
        return self.query_one(PathList)

    def compare(self, comparison: Comparison) -> None:
        """Show what `comparison` finds."""
        self._comparison = comparison
        self.query_one(TextView).show(iter(()))
        self.paths.show(Changes(why_not="comparing..."))
        work = functools.partial(self._compare, comparison)
        in_thread(self, work, group="compare", exclusive=True)

    def _compare(self, comparison: Comparison) -> None:
        worker = get_current_worker()
        try:
            changes = comparison(self._reader())
        except Exception as error:  # noqa: BLE001 - shown where the paths would be
            changes = Changes(why_not=in_words(error))
        if not worker.is_cancelled:
            self.post_message(self.Compared(comparison, changes))

    @on(Compared)
    def compared(self, message: Compared) -> None:
        """List the paths."""
        message.stop()
        if message.comparison is self._comparison:
            self.paths.show(message.changes)

    @on(LineList.Moved)
    def moved(self, message: LineList.Moved) -> None:
        """Show how the path under the cursor changed."""
        message.stop()
        change = self.paths.change
        if change is not None:
            self.query_one(TextView).show(self._patch(change))

    @on(LineList.Opened)
    def opened(self, message: LineList.Opened) -> None:
        """Into the patch."""
        message.stop()
        self.query_one(TextView).focus()

    def _patch(self, change: Change) -> Iterator[Line]:
        yield from patch_lines(self._reader().patch(change))
