"""Lines of text in tones: what widgets draw, made and tested without a terminal.

A line is pieces of text; a piece has a tone, and each theme says what that looks like. Widths are
cells of a terminal: a wide character takes two.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from crabrt.timeline.signs import Sign, Tone

_CUT = "…"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line.

    Attributes:
        text: safe to print, without newlines.
        tone: see `Tone`.
        strong: drawn with emphasis.
        ground: the tone of what is behind it; None: nothing.
    """

    text: str
    tone: Tone = Tone.PLAIN
    strong: bool = False
    ground: Tone | None = None


Line = tuple[Piece, ...]


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells: cut with an ellipsis, or filled with spaces.

    Args:
        text: safe to print, on one line.
        width: cells; 0 or less gives nothing.
        right: align at the right.
    """
    if width <= 0:
        return ""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + _CUT
    return " " * (width - length) + text if right else text + " " * (width - length)


def width_of(line: Iterable[Piece]) -> int:
    """The cells that a line takes."""
    return sum(cell_len(piece.text) for piece in line)


def cut(line: Iterable[Piece], width: int) -> Line:
    """The line in at most `width` cells; what is behind is left out, and an ellipsis says so."""
    kept: list[Piece] = []
    left = width
    for piece in line:
        length = cell_len(piece.text)
        if length > left:
            kept.append(replace(piece, text=fit(piece.text, left)))
            break
        kept.append(piece)
        left -= length
    return tuple(kept)


def aligned(line: Iterable[Piece], width: int, *, right: bool = False) -> Line:
    """The line in exactly `width` cells: cut, or filled with spaces."""
    found = cut(line, width)
    filling = Piece(" " * (width - width_of(found)))
    return (filling, *found) if right else (*found, filling)


def joined(parts: Iterable[Line], between: str = "  ") -> Line:
    """Lines as one, with `between` among those that are not empty."""
    found: list[Piece] = []
    for part in parts:
        if part:
            found += [Piece(between), *part] if found else part
    return tuple(found)


def sign_piece(sign: Sign, *, word: bool = True, strong: bool = False) -> Piece:
    """A sign in its tone; with `word` false its shape alone, where it has one."""
    return Piece(sign.text if word else sign.shape or sign.word, sign.tone, strong)


def plain(line: Iterable[Piece]) -> str:
    """The text of a line."""
    return "".join(piece.text for piece in line)


def marked(line: Line, words: str, ground: Tone) -> Line:
    """The line with another ground wherever `words` stand in it, in any case."""
    text = plain(line).lower()
    if not words or words.lower() not in text or len(text) != len(plain(line)):
        return line
    wanted = [match.span() for match in re.finditer(re.escape(words.lower()), text)]
    found: list[Piece] = []
    at = 0
    for piece in line:
        cuts = {edge - at for span in wanted for edge in span if at < edge < at + len(piece.text)}
        edges = sorted({0, len(piece.text), *cuts})
        for start, end in itertools.pairwise(edges):
            inside = any(first <= at + start < last for first, last in wanted)
            part = replace(piece, text=piece.text[start:end])
            found.append(replace(part, ground=ground) if inside else part)
        at += len(piece.text)
    return tuple(found)
