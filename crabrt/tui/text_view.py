"""Long text as a widget: read as far as somebody has scrolled, never as a whole.

The text is an iterator of lines, which may read from the store; it is asked in a thread, for some
more whenever the end of what is there comes near, or while words are looked for. Lines longer than
the screen go on below.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.worker import get_current_worker

from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Tone
from crabrt.tui.background import in_thread, in_words
from crabrt.tui.looks import BAR_CSS, TONE_CLASSES, TONES_CSS, Looks
from crabrt.tui.pieces import Line, Piece, marked, plain
from crabrt.tui.wrapping import Wrapped, bounded

_AHEAD = 200  # lines read beyond the last one that is seen
_AT_ONCE = 64 << 10  # characters
_LINES_AT_ONCE = 2_000  # on the way to the end, or to words
_LINES_MOST = 50_000
_CHARACTERS_MOST = 4 << 20


class TextView(ScrollView, can_focus=True, inherit_bindings=False):
    """See the module.

    Attributes:
        words: what is looked for; empty: nothing.
    """

    DEFAULT_CSS = "TextView { background: $surface;" + BAR_CSS + "" + TONES_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("down,j", "scroll_down", "Down", show=False),
        Binding("pageup,ctrl+b", "page_up", "Page up", show=False),
        Binding("pagedown,ctrl+f,space", "page_down", "Page down", show=False),
        Binding("home,g", "scroll_home", "Beginning", show=False),
        Binding("end,G", "to_end", "End", show=False),
        Binding("slash", "find", "Find", tooltip="Find words in this text"),
        Binding("n", "again(1)", "Next found", show=False, tooltip="The next place of the words"),
        Binding("N", "again(-1)", "Found before", show=False, tooltip="The place before"),
    ]

    class Read(Message):
        """More of the text is there."""

        def __init__(self, text: Iterator[Line], lines: list[Line], *, done: bool) -> None:
            super().__init__()
            self.text = text
            self.lines = lines
            self.done = done

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(id=id)
        self.words = ""
        self._text: Iterator[Line] = iter(())
        self._wrapped = Wrapped()
        self._done = True
        self._reading = False
        self._to_end = False
        self._seeking: int | None = None  # the line from which on words are looked for
        self._one_reader = threading.Lock()
        self._looks: Looks | None = None

    def show(self, text: Iterator[Line]) -> None:
        """Show another text, from its beginning."""
        self._text = itertools.chain.from_iterable(map(bounded, text))
        self._done = self._reading = False
        self._to_end, self._seeking = False, None
        self._wrapped = Wrapped()
        self._wrapped.fit(self.cells)
        self.scroll_to(y=0, animate=False)
        self._more()

    @property
    def cells(self) -> int:
        """How wide a row is, without the scrollbar."""
        return self.scrollable_content_region.width

    @property
    def text(self) -> str:
        """What has been read so far."""
        return "\n".join(plain(line) for line in self._wrapped.lines)

    @property
    def done(self) -> bool:
        """Whether all of it has been read that will be."""
        return self._done

    # -- moving ------------------------------------------------------------------------------

    def action_to_end(self) -> None:
        """To the end, reading on until it is there."""
        self._to_end = True
        self.scroll_end(animate=False)
        self._more()

    def action_find(self) -> None:
        """Ask for words."""
        from crabrt.tui.ask_screen import AskScreen  # noqa: PLC0415 - first paint does not need it

        self.app.push_screen(AskScreen("Find in this text:", self.words), self.find)

    def find(self, words: str | None) -> None:
        """Go to where `words` stand next, from the line at the top on; empty: look no longer."""
        if words is None:
            return
        self.words = words
        self._seeking = self._wrapped.line_of(self.scroll_offset.y) if words else None
        self.refresh()
        self._seek()

    def action_again(self, by: int) -> None:
        """The next place of the words, or the one before."""
        here = self._wrapped.line_of(self.scroll_offset.y)
        if by > 0:
            self._seeking = here + 1
            self._seek()
            return
        at = self._wrapped.find(self.words, range(here - 1, -1, -1))
        if at is None:
            self.notify(f"nothing before this: {safe_text(self.words)}", markup=False)
        else:
            self._go_to(at)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """`n` and `N` mean something only while words are looked for."""
        del parameters
        return action != "again" or bool(self.words)

    def _seek(self) -> None:
        """Look on for the words in what is there; read on if they are not there."""
        if self._seeking is None:
            return
        at = self._wrapped.find(self.words, range(self._seeking, len(self._wrapped.lines)))
        if at is not None:
            self._seeking = None
            self._go_to(at)
        elif self._done:
            self._seeking = None
            self.notify(f"not found: {safe_text(self.words)}", markup=False)
        else:
            self._seeking = len(self._wrapped.lines)
            self._more()

    def _go_to(self, line: int) -> None:
        self._to_end = False
        row = self._wrapped.row_of(line, self.words)
        # what is found at the end of a text stands at the top, too: the next look begins there
        self.virtual_size = Size(self.cells, len(self._wrapped.rows) + self.size.height)
        self.scroll_to(y=row, animate=False, force=True)
        self.refresh()

    # -- reading -----------------------------------------------------------------------------

    def _more(self) -> None:
        """Read on in a thread, if that is wanted and nobody reads."""
        end = self.scroll_offset.y + self.size.height + _AHEAD
        wanted = self._to_end or self._seeking is not None or end >= len(self._wrapped.rows)
        if wanted and not self._done and not self._reading:
            self._reading = True
            far = self._to_end or self._seeking is not None
            count = _LINES_AT_ONCE if far else _AHEAD
            read = functools.partial(self._read, self._text, count)
            in_thread(self, read, group=f"read {id(self)}")

    def _read(self, text: Iterator[Line], count: int) -> None:
        worker = get_current_worker()
        lines: list[Line] = []
        with self._one_reader:
            if worker.is_cancelled or text is not self._text:
                return
            try:
                lines, done = _next_lines(text, count)
            except Exception as error:  # noqa: BLE001 - it is a line of the text, for people
                lines.append((Piece(f"! {safe_text(in_words(error))}", Tone.BAD),))
                done = True
        self.post_message(self.Read(text, lines, done=done))

    def on_text_view_read(self, message: Read) -> None:
        """Show what was read, unless another text is shown by now."""
        message.stop()
        if message.text is not self._text:
            return
        self._reading = False
        self._done = message.done
        lines = message.lines
        wrapped = self._wrapped
        full = wrapped.characters >= _CHARACTERS_MOST or len(wrapped.lines) >= _LINES_MOST
        if full and not self._done:
            self._done = True
            lines.append((Piece("... the screen shows no more of it", Tone.WARNING),))
        wrapped.add(lines)
        self._lay_out()
        if self._to_end:
            self.scroll_end(animate=False)
            self._to_end = not self._done
        self._seek()
        self._more()

    # -- drawing -----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._wrapped.fit(self.cells)
        self.virtual_size = Size(self.cells, len(self._wrapped.rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A line of the screen."""
        if self._looks is None:
            self._looks = Looks.of(self)
        at = y + self.scroll_offset.y
        line = self._wrapped.rows[at] if at < len(self._wrapped.rows) else ()
        if self.words:
            line = marked(line, self.words, Tone.NEWS)
        return self._looks.strip(line, self.rich_style, self.cells)

    def notify_style_update(self) -> None:
        """Another theme: other colours."""
        self._looks = None
        super().notify_style_update()

    def on_resize(self) -> None:
        """Another width: other rows, and the same line at the top."""
        if self.cells != self._wrapped.width and self.cells > 1:
            top = self._wrapped.line_of(self.scroll_offset.y) if self._wrapped.lines else None
            self._lay_out()
            if top:
                self.scroll_to(y=self._wrapped.row_of(top), animate=False)
        self._more()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Read on where somebody comes near the end; who goes back wants no end."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value:
            self._to_end = False
        self._more()


def _next_lines(text: Iterator[Line], count: int) -> tuple[list[Line], bool]:
    """Up to `count` more lines, and whether the text ended."""
    found: list[Line] = []
    characters = 0
    for line in itertools.islice(text, count):
        found.append(line)
        characters += sum(len(piece.text) for piece in line)
        if characters >= _AT_ONCE:
            return found, False
    return found, len(found) < count
