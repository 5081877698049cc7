"""A list of lines with a cursor, drawn as it is seen: 10,000 lines cost what fifty do.

What it lists has keys (turn numbers, run ids); lines between them may be about none. The cursor is
on a key, so it stays where it is while lines come and go around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from crabrt.tui.looks import BAR_CSS, TONE_CLASSES, TONES_CSS, Looks
from crabrt.tui.pieces import Line

Key = TypeVar("Key", int, str)
_STRIPS_MOST = 500


class LineList(ScrollView, Generic[Key], can_focus=True, inherit_bindings=False):
    """See the module. A subclass says what stands on which line."""

    DEFAULT_CSS = (
        "LineList { background: $surface;" + BAR_CSS + ""
        " & > .list--cursor { background: $primary 30%; }"
        " &:focus > .list--cursor { background: $primary 50%; }"
        " & > .list--marked { background: $accent 25%; }" + TONES_CSS + "}"
    )
    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES | {"list--cursor", "list--marked"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f,space", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("enter", "open", "Open"),
    ]

    class Opened(Message):
        """A key was chosen, by key or mouse; see `LineList.key` for which."""

    class Moved(Message):
        """The cursor is on another key."""

    def __init__(self, *, follows: bool = False, id: str | None = None) -> None:  # noqa: A002
        """Args: follows: stays at the last key while the cursor is on it."""
        super().__init__(id=id)
        self.key: Key | None = None
        self.marked: Key | None = None
        self.following = follows
        self._follows = follows
        self._looks: Looks | None = None
        self._strips: dict[int, Strip] = {}  # lines as they were drawn, but those pointed out

    @property
    def cells(self) -> int:
        """How wide a line is, without the scrollbar."""
        return self.scrollable_content_region.width

    # -- what a subclass says ----------------------------------------------------------------

    @property
    def keys(self) -> Sequence[Key]:
        """What is listed, from top to bottom."""
        raise NotImplementedError

    @property
    def line_count(self) -> int:
        """How many lines there are."""
        return len(self.keys)

    def place_of(self, key: Key) -> int | None:
        """The place of a key among `keys`; None: it is not listed."""
        raise NotImplementedError

    def line_of(self, place: int) -> int:
        """The line of the key at a place."""
        return place

    def line_at(self, at: int) -> tuple[Line, Key | None]:
        """What stands on a line, and which key it is about, if any."""
        raise NotImplementedError

    def place_near(self, key: Key) -> int:
        """The place to put the cursor on when its key is gone."""
        del key
        return 0

    # -- drawing -----------------------------------------------------------------------------

    def lay_out(self) -> None:
        """What is listed has changed, or the width has: place the cursor, draw all again."""
        self._strips.clear()
        self.virtual_size = Size(self.cells, self.line_count)
        keys = self.keys
        if not keys:
            self.key = None
        elif self.following or self.key is None:
            self._put(keys[-1] if self._follows else keys[0], following=self._follows)
        elif self.place_of(self.key) is None:
            self._move_to(self.place_near(self.key))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A line of the screen."""
        at = y + self.scroll_offset.y
        if at in self._strips:
            return self._strips[at]
        if self._looks is None:
            self._looks = Looks.of(self)
        line, key = self.line_at(at)
        base = Style(color=self.rich_style.color, bgcolor=self.rich_style.bgcolor)
        for name, wanted in (("list--cursor", self.key), ("list--marked", self.marked)):
            if key is not None and key == wanted:
                base += Style(bgcolor=self.get_component_rich_style(name).bgcolor)
                return self._looks.strip(line, base, self.cells)
        strip = self._looks.strip(line, base, self.cells)
        if key is not None:
            if len(self._strips) >= _STRIPS_MOST:
                self._strips.clear()
            self._strips[at] = strip
        return strip

    def redraw(self) -> None:
        """What stands on the lines has changed, and nothing else."""
        self._strips.clear()
        self.refresh()

    def notify_style_update(self) -> None:
        """Another theme: other colours."""
        self._looks = None
        self._strips.clear()
        super().notify_style_update()

    def on_resize(self) -> None:
        """Another width has room for other columns."""
        self.lay_out()

    # -- moving ------------------------------------------------------------------------------

    def go_to(self, key: Key) -> bool:
        """Put the cursor on a key; False if it is not listed."""
        place = self.place_of(key)
        if place is None:
            return False
        self._move_to(place)
        return True

    def mark(self, key: Key | None) -> None:
        """Point out a line, beside that of the cursor."""
        self.marked = key
        self.redraw()

    def action_move(self, by: int) -> None:
        """A key up or down."""
        place = None if self.key is None else self.place_of(self.key)
        self._move_to(0 if place is None else place + by)

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self.action_move(by * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """To the top."""
        self._move_to(0)

    def action_last(self) -> None:
        """To the end; a list that follows does so from now on."""
        self._move_to(len(self.keys))

    def on_mouse_scroll_down(self) -> None:
        """Whoever scrolls away is not taken back to the newest line."""
        self.following = False

    def on_mouse_scroll_up(self) -> None:
        """Likewise."""
        self.following = False

    def action_open(self) -> None:
        """What is under the cursor in full."""
        if self.key is not None:
            self.post_message(self.Opened())

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; one where it is already opens what is there."""
        _, key = self.line_at(event.y + self.scroll_offset.y)
        if key is None:
            return
        if key == self.key:
            self.action_open()
        else:
            self.go_to(key)

    def _move_to(self, place: int) -> None:
        keys = self.keys
        if keys:
            place = min(max(place, 0), len(keys) - 1)
            self._put(keys[place], following=self._follows and place + 1 == len(keys))

    def _put(self, key: Key, *, following: bool) -> None:
        before, self.key, self.following = self.key, key, following
        place = self.place_of(key)
        if place is not None:
            line = self.line_count - 1 if following else self.line_of(place)
            region = Region(0, line, max(1, self.cells), 1)
            self.scroll_to_region(region, animate=False, force=True)
        if before != key:
            self._strips.pop(-1 if place is None else self.line_of(place), None)
            self.refresh()
            self.post_message(self.Moved())
