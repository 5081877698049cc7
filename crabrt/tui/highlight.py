"""Source text in tones, by Pygments' lexers: for files and for the lines of patches.

Pygments is told a name and a text; it never runs anything. Texts are bounded by who asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.token import (
    Comment,
    Keyword,
    Literal,
    Name,
    Number,
    String,
    _TokenType,
    is_token_subtype,
)
from pygments.util import ClassNotFound

from crabrt.timeline.signs import Tone
from crabrt.tui.pieces import Line, Piece

_TONES: tuple[tuple[_TokenType, Tone], ...] = (
    (Comment, Tone.QUIET),
    (Keyword, Tone.NEWS),
    (String, Tone.GOOD),
    (Number, Tone.PROCESSES),
    (Literal, Tone.PROCESSES),
    (Name.Function, Tone.FILES),
    (Name.Class, Tone.FILES),
    (Name.Decorator, Tone.PROCESSES),
    (Name.Tag, Tone.FILES),
)
_LINE_MOST = 2_000  # characters; a longer line is data, not source


def lexer_for(path: str) -> Lexer | None:
    """What knows the language of a file with that name; None if nothing does."""
    try:
        return get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def highlighted(lines: Sequence[str], lexer: Lexer | None) -> list[Line]:
    """The lines of one text in tones; as many lines as were given.

    Args:
        lines: safe to print, without newlines.
        lexer: of the language; None: no tones.
    """
    if lexer is None or any(len(line) > _LINE_MOST for line in lines):
        return [(Piece(line),) for line in lines]
    found: list[list[Piece]] = [[]]
    for token, text in lexer.get_tokens("\n".join(lines)):
        tones = (tone for kind, tone in _TONES if is_token_subtype(token, kind))
        tone = next(tones, Tone.PLAIN)
        for at, part in enumerate(text.split("\n")):
            if at:
                found.append([])
            if part:
                found[-1].append(Piece(part, tone))
    shown = [tuple(line) for line in found[: len(lines)]]
    shown += [()] * (len(lines) - len(shown))
    same = all(_text(line) == given for line, given in zip(shown, lines, strict=True))
    return shown if same else [(Piece(line),) for line in lines]


def _text(line: Line) -> str:
    return "".join(piece.text for piece in line)
