"""The line of keys at the bottom of a screen: what they do here, for eyes and for the mouse.

One widget that draws one line: a widget for each key costs a tenth of the time to the first paint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

_EDGE = "▏"


@dataclass(frozen=True, slots=True)
class _Key:
    """A key on the bar, from which cell on and up to which."""

    key: str
    shown: str
    word: str
    tooltip: str
    enabled: bool
    start: int
    end: int

    @property
    def width(self) -> int:
        """Cells that it takes: a blank before each of its parts, and one behind it."""
        return cell_len(self.shown) + 2 + (cell_len(self.word) + 1 if self.word else 0)


class KeyBar(Widget):
    """See the module. It shows the bindings of its screen that want to be shown, as they are now.

    Keys that there is no room for are left out; `?` lists them all.
    """

    DEFAULT_CSS = """
    KeyBar {
        dock: bottom; height: 1; color: $footer-foreground; background: $footer-background;
        & > .bar--key {
            color: $footer-key-foreground; background: $footer-key-background; text-style: bold;
        }
        & > .bar--word {
            color: $footer-description-foreground; background: $footer-description-background;
        }
        & > .bar--over { background: $block-hover-background; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"bar--key", "bar--word", "bar--over"}

    def __init__(self) -> None:
        super().__init__()
        self._keys: tuple[_Key, ...] | None = None
        self._over: str | None = None

    def on_mount(self) -> None:
        """Keys may mean something else from moment to moment."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_resize(self) -> None:
        """There is room for others."""
        self._keys = None

    def _changed(self, screen: Screen[Any]) -> None:
        del screen
        self._keys = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line."""
        del y
        key_style = self.get_component_rich_style("bar--key")
        word_style = self.get_component_rich_style("bar--word")
        over = Style(bgcolor=self.get_component_rich_style("bar--over").bgcolor)
        segments: list[Segment] = []
        at = 0
        for key in self._shown():
            segments.append(Segment(" " * (key.start - at), self.rich_style))
            more = over if key.key == self._over else Style(dim=not key.enabled)
            before = _EDGE if key.start > at else " "
            segments.append(Segment(before, self.rich_style))
            segments.append(Segment(f"{key.shown} ", key_style + more))
            segments.append(Segment(f"{key.word} " if key.word else "", word_style + more))
            at = key.end
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Point out the key under the mouse."""
        key = self._at(event.x)
        if self._over != (None if key is None else key.key):
            self._over = None if key is None else key.key
            self.tooltip = None if key is None else key.tooltip
            self.refresh()

    def on_leave(self) -> None:
        """The mouse went away."""
        self._over = None
        self.refresh()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """As if the key had been pressed."""
        key = self._at(event.x)
        if key is not None and key.enabled:
            self.app.simulate_key(key.key)

    def _at(self, x: int) -> _Key | None:
        return next((key for key in self._shown() if key.start <= x < key.end), None)

    def _shown(self) -> tuple[_Key, ...]:
        if self._keys is None:
            self._keys = tuple(self._placed())
        return self._keys

    def _placed(self) -> list[_Key]:
        """The keys with their places; the palette's at the right, without its word if need be."""
        told: set[str] = set()
        found: list[_Key] = []
        palette: _Key | None = None
        at, right = 0, self.size.width
        for key, active in self.screen.active_bindings.items():
            binding = active.binding
            is_palette = key == self.app.COMMAND_PALETTE_BINDING
            if binding.action in told or not (binding.show or is_palette):
                continue
            told.add(binding.action)
            shown, word = self.app.get_key_display(binding), binding.description
            tooltip = active.tooltip or word
            one = _Key(binding.key, shown, word, tooltip, active.enabled, at, at)
            if is_palette:
                palette = one
            else:
                found.append(replace(one, end=at + one.width))
                at += one.width
        if palette is not None and at + palette.width > right:
            palette = replace(palette, word="")
        if palette is not None and at + palette.width <= right:
            found.append(replace(palette, start=right - palette.width, end=right))
        return [key for key in found if key.end <= right]
