"""Colours: what a tone looks like, in every theme. Colour is never the only sign of anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from crabrt.timeline.signs import Tone
from crabrt.tui.pieces import Line

_GROUNDS = (Tone.GOOD, Tone.BAD, Tone.NEWS)

TONE_CLASSES = {f"tone--{tone}" for tone in Tone} | {f"ground--{tone}" for tone in _GROUNDS}
"""Component classes of every widget that draws lines."""

TONES_CSS = """
    & > .tone--quiet { text-style: dim; }
    & > .tone--good { color: $text-success; }
    & > .tone--news { color: $accent; }
    & > .tone--files { color: $primary; }
    & > .tone--processes { color: $text-secondary; }
    & > .tone--external { color: $text-warning; text-style: bold; }
    & > .tone--warning { color: $text-warning; }
    & > .tone--bad { color: $text-error; }
    & > .ground--good { background: $success 15%; }
    & > .ground--bad { background: $error 15%; }
    & > .ground--news { background: $accent 40%; }
"""
"""The rules for them; `$text-...` are colours that can be read on the theme's background."""

BAR_CSS = (
    " overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable;"
    " scrollbar-background: $surface; scrollbar-background-hover: $surface;"
    " scrollbar-background-active: $surface; scrollbar-color: $primary 35%;"
)
"""Of what scrolls."""

STRONG = Style(bold=True)


@dataclass(frozen=True)
class Looks:
    """What tones look like in a widget.

    Attributes:
        tones: foreground and emphasis.
        grounds: background.
    """

    tones: Mapping[Tone, Style]
    grounds: Mapping[Tone | None, Style]

    @classmethod
    def of(cls, widget: Widget) -> Looks:
        """Those of a widget with `TONE_CLASSES` and `TONES_CSS`."""
        tones = {}
        for tone in Tone:
            style = widget.get_component_rich_style(f"tone--{tone}", partial=True)
            tones[tone] = Style(color=style.color, bold=style.bold, dim=style.dim)
        grounds: dict[Tone | None, Style] = {None: Style.null()}
        for tone in _GROUNDS:
            behind = widget.get_component_rich_style(f"ground--{tone}")
            grounds[tone] = Style(bgcolor=behind.bgcolor)
        return cls(tones, grounds)

    def strip(self, line: Line, base: Style, width: int) -> Strip:
        """A line as Textual draws it: `width` cells on `base`, or on the ground of its end."""
        segments = []
        for piece in line:
            style = base + self.grounds[piece.ground] + self.tones[piece.tone]
            segments.append(Segment(piece.text, style + STRONG if piece.strong else style))
        behind = base + self.grounds[line[-1].ground] if line else base
        return Strip(segments).adjust_cell_length(width, behind)
