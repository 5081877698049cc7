"""The signs of the view state as cells: a colour for each tone. No I/O."""

from __future__ import annotations

from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Sign, Tone

STYLES: dict[Tone, tuple[str, ...]] = {
    Tone.PLAIN: (),
    Tone.QUIET: ("dim",),
    Tone.GOOD: ("green",),
    Tone.NEWS: ("cyan",),
    Tone.FILES: ("yellow",),
    Tone.PROCESSES: ("magenta",),
    Tone.EXTERNAL: ("red",),
    Tone.WARNING: ("yellow",),
    Tone.BAD: ("red",),
}
"""What each tone looks like on a terminal."""

LINE_STYLES = {
    "head": ("bold",),
    "hunk": ("cyan",),
    "added": ("green",),
    "removed": ("red",),
    "note": ("dim",),
    "context": (),
}
"""The same for the lines of a patch."""


def sign_cell(sign: Sign) -> Cell:
    """Shape and word."""
    return Cell(safe_text(sign.text), STYLES[sign.tone])


def sign_text(out: Screen, sign: Sign) -> str:
    """The same, for a line."""
    return out.style(safe_text(sign.text), *STYLES[sign.tone])
