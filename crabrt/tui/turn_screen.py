"""The screen of one turn: what it did, what was said, its calls, its changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from crabrt.timeline.reader import RunReader
from crabrt.timeline.rows import Row
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Tone
from crabrt.timeline.timeline import Timeline
from crabrt.tui import turn_text
from crabrt.tui.changes_view import ChangesView
from crabrt.tui.doing import DOING_BINDINGS, Doing
from crabrt.tui.files_view import FilesView
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.line_list import LineList
from crabrt.tui.lines_widget import Lines
from crabrt.tui.pieces import Line, Piece, cut, sign_piece
from crabrt.tui.sources import Source
from crabrt.tui.text_view import TextView

_TABS = (("overview", "Overview"), ("messages", "Messages"), ("calls", "Calls"),
         ("changes", "Changes"), ("files", "Files"))  # fmt: skip
_TEXTS = {
    "overview": turn_text.overview,
    "messages": turn_text.messages,
    "calls": turn_text.calls,
}
_LOOK_S = 1.0


class TurnScreen(Doing, Screen[int]):
    """See the module. It gives the number of the turn it showed last."""

    DEFAULT_CSS = """
    TurnScreen #title { padding: 0 1; background: $panel; }
    TurnScreen #tabs { padding: 0 1; background: $surface; }
    TurnScreen ContentSwitcher { height: 1fr; }
    TurnScreen TextView { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(n), f"tab('{name}')", title, show=False)
            for n, (name, title) in enumerate(_TABS, 1)
        ),
        Binding("tab", "next_tab(1)", "Next part", show=False),
        Binding("shift+tab", "next_tab(-1)", "Part before", show=False),
        Binding("left_square_bracket", "step(-1)", "Before", tooltip="The turn before"),
        Binding("right_square_bracket", "step(1)", "Next", tooltip="The next turn"),
        Binding("slash", "find", "Find", show=False, tooltip="Find words in the text"),
        *DOING_BINDINGS,
        Binding(
            "R",
            "restore_paths",
            "Paths",
            tooltip="Put the chosen paths, or the one under the cursor, back to this turn",
        ),
        Binding("escape,left", "leave", "Back"),
    ]

    def __init__(self, source: Source, state: Callable[[], Timeline], number: int) -> None:
        """Args: where to read; gives the run as it is now; the turn."""
        super().__init__()
        self.source = source
        self._state = state
        self.number = number
        self._shown: dict[str, int] = {}
        self._row: Row | None = None

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield Lines(self._title, height=1, id="title")
        yield Lines(self._tabs, height=1, id="tabs")
        with ContentSwitcher(initial="overview"):
            for name in _TEXTS:
                yield TextView(id=name)
            yield ChangesView(self._reader, id="changes")
            yield FilesView(self._reader, id="files")
        yield KeyBar()

    def on_mount(self) -> None:
        """Show the first part, and look now and then whether the turn is as it was."""
        self.action_tab("overview")
        self.set_interval(_LOOK_S, self._look)

    @property
    def timeline_now(self) -> Timeline:
        """See `Doing`."""
        return self._state()

    @property
    def row_here(self) -> Row | None:
        """The turn, as it is now."""
        return self._state().rows.at(self.number)

    @property
    def path_here(self) -> bytes | None:
        """The path under the cursor, where paths are listed."""
        if self.part == "changes":
            change = self.query_one(ChangesView).paths.change
            return None if change is None else change.path
        if self.part == "files":
            entries = self.query_one(FilesView).entries
            return None if entries.entry is None else entries.path
        return None

    @property
    def part(self) -> str:
        """The name of the part that is shown."""
        return self.query_one(ContentSwitcher).current or "overview"

    def action_tab(self, name: str) -> None:
        """Show a part of the turn."""
        self.query_one(ContentSwitcher).current = name
        self.query_one("#tabs", Lines).again()
        part: Widget = self.query_one(f"#{name}")
        if self._shown.get(name) != self.number:
            self._shown[name] = self.number
            self._row = self.row_here
            self._fill(part)
        inner = part.query(LineList)
        (inner.first() if inner else part).focus()
        self.refresh_bindings()

    def action_next_tab(self, by: int) -> None:
        """The next part, or the one before, round and round."""
        names = [name for name, _ in _TABS]
        self.action_tab(names[(names.index(self.part) + by) % len(names)])

    def action_find(self) -> None:
        """Ask for words to find in the text that is shown."""
        part: Widget = self.query_one(f"#{self.part}")
        text = part if isinstance(part, TextView) else part.query_one(TextView)
        text.action_find()

    def action_step(self, by: int) -> None:
        """The turn before or behind, the same part of it."""
        rows = self._state().rows
        place = rows.place_of(self.number)
        if place is not None and 0 <= place + by < len(rows):
            self.number = rows.numbers[place + by]
            self.query_one("#title", Lines).again()
            self.action_tab(self.part)

    def action_restore_paths(self) -> None:
        """Put the chosen paths, or the one under the cursor, back to how they were."""
        lists = {"changes": self.query_one(ChangesView).paths.wanted,
                 "files": self.query_one(FilesView).entries.wanted}  # fmt: skip
        if paths := lists.get(self.part):
            self.restore_paths(paths)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Paths can be restored where paths are listed."""
        del parameters
        return action != "restore_paths" or self.part in {"changes", "files"}

    def action_leave(self) -> None:
        """From a text back to its list; from there to the timeline, to this turn."""
        part: Widget = self.query_one(f"#{self.part}")
        lists = part.query(LineList)
        if lists and not lists.first().has_focus:
            lists.first().focus()
        else:
            self.dismiss(self.number)

    def on_click(self, event: events.Click) -> None:
        """A click on the name of a part shows it."""
        if event.widget is not None and event.widget.id == "tabs":
            at = 1  # the padding
            for name, title in _TABS:
                at += cell_len(_tab_text(1, title))
                if event.x < at:
                    self.action_tab(name)
                    return

    def _look(self) -> None:
        """Show a turn that goes on as it is now; what somebody reads or chooses stays as it is."""
        row = self.row_here
        if row is None or row == self._row:
            return
        self.query_one("#title", Lines).again()
        part: Widget = self.query_one(f"#{self.part}")
        texts = [part] if isinstance(part, TextView) else part.query(TextView)
        in_use = any(text.scroll_offset.y or text.has_focus is not (text is part) for text in texts)
        chosen = (
            self.query_one(ChangesView).paths.chosen or self.query_one(FilesView).entries.chosen
        )
        if not (in_use or chosen):
            self._row = row
            self._shown.clear()
            self._shown[self.part] = self.number
            self._fill(part)

    def _fill(self, part: Widget) -> None:
        row, number = self.row_here, self.number
        if isinstance(part, ChangesView):
            rows = self._state().rows
            part.compare(lambda reader: reader.changed_by(rows, number))
        elif isinstance(part, FilesView) and row is not None:
            part.browse(row)
        elif isinstance(part, TextView) and row is not None and part.id is not None:
            part.show(self._lines(part.id, row))

    def _lines(self, name: str, row: Row) -> Iterator[Line]:
        yield from _TEXTS[name](self._reader(), row)

    def _reader(self) -> RunReader:
        return self.source.reader(self._state().run)

    def _title(self, width: int) -> list[Line]:
        row = self.row_here
        who = Piece(f"{safe_text(self._state().view.run or self._state().run)}@{self.number}",
                    strong=True)  # fmt: skip
        if row is None:
            return [(who, Piece("  this turn is gone", Tone.BAD))]
        signs = (sign_piece(row.verdict), Piece("  "), sign_piece(row.checkpoint))
        return [cut((who, Piece("  "), *signs), width)]

    def _tabs(self, width: int) -> list[Line]:
        found = []
        for number, (name, title) in enumerate(_TABS, 1):
            here = name == self.part
            text = _tab_text(number, title)
            text = f"[{text[1:-2]}] " if here else text
            found.append(Piece(text, Tone.NEWS if here else Tone.QUIET, strong=here))
        return [cut(found, width)]


def _tab_text(number: int, title: str) -> str:
    return f" {number} {title}  "
