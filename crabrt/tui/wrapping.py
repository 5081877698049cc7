"""Lines wrapped for a width: rows of a screen, which line each is of, and where words stand."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.cells import cell_len, set_cell_size

from crabrt.tui.pieces import Line, Piece, plain

LINE_MOST = 2_000
"""Characters of a line; what is longer goes on as another one, so that no line takes long."""

_TAB = 8
_INDENT = 2  # of what goes on on the next line, where there is room
_INDENT_FROM = 8
_WORD_MOST = 16  # characters of a word that is not broken


class Wrapped:
    """Lines and the rows they take.

    Attributes:
        lines: as they were given.
        rows: as they are shown.
        width: what they are wrapped for, in cells; 0: not yet.
        characters: of all lines.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.rows: list[Line] = []
        self.width = 0
        self.characters = 0
        self._first: list[int] = []  # for each line its first row

    def add(self, lines: Iterable[Line]) -> None:
        """More lines at the end."""
        before = len(self.lines)
        self.lines += lines
        self.characters += sum(len(plain(line)) for line in self.lines[before:])
        self._wrap(before)

    def fit(self, width: int) -> bool:
        """Wrap for a width; whether it is another one."""
        if width <= 1 or width == self.width:
            return False
        self.width = width
        self.rows, self._first = [], []
        self._wrap(0)
        return True

    def line_of(self, row: int) -> int:
        """The line that a row is of."""
        return max(0, bisect.bisect_right(self._first, row) - 1)

    def row_of(self, line: int, words: str = "") -> int:
        """The row where a line begins; if `words` stand in it, the first one that has them."""
        first = self._first[line]
        end = self._first[line + 1] if line + 1 < len(self._first) else len(self.rows)
        # what goes on on the next row has an indent of its own there
        parts = [plain(row[1 if at and self.width >= _INDENT_FROM else 0 :])
                 for at, row in enumerate(self.rows[first:end])]  # fmt: skip
        found = "".join(parts).lower().find(words.lower())
        ends = list(itertools.accumulate(map(len, parts)))
        return first + bisect.bisect_right(ends, found) if words and found >= 0 else first

    def find(self, words: str, lines: Iterable[int]) -> int | None:
        """The first of `lines` in which `words` stand, in any case."""
        wanted = words.lower()
        return next((at for at in lines if wanted in plain(self.lines[at]).lower()), None)

    def _wrap(self, first: int) -> None:
        if self.width:
            for line in itertools.islice(self.lines, first, None):
                self._first.append(len(self.rows))
                self.rows += wrap(line, self.width)


def bounded(line: Line) -> Iterator[Line]:
    """The line, as several if it is longer than `LINE_MOST`."""
    found: list[Piece] = []
    left = LINE_MOST
    for piece in line:
        text = piece.text
        while len(text) > left:
            found.append(replace(piece, text=text[:left]))
            yield tuple(found)
            found, text, left = [], text[left:], LINE_MOST
        found.append(replace(piece, text=text))
        left -= len(text)
    yield tuple(found)


def wrap(line: Line, width: int) -> Iterator[Line]:
    """A line as lines of at most `width` cells (2 or more); tabs are spaces.

    It is broken behind a blank if there is one near the end, else anywhere.
    """
    indent = _INDENT if width >= _INDENT_FROM else 0
    row: list[Piece] = []
    left = width
    begun = False  # there is something in the row, and a blank at its end
    for piece in _untabbed(line):
        text = piece.text
        while cell_len(text) > left:
            head = _whole_words(_head(text, left), text, begun=begun)
            row.append(replace(piece, text=head))
            yield tuple(row)
            text = text[len(head) :]
            row, left = [Piece(" " * indent)] if indent else [], width - indent
            begun = False
        row.append(replace(piece, text=text))
        left -= cell_len(text)
        begun = text.endswith(" ") if text else begun
    yield tuple(row)


def _whole_words(head: str, text: str, *, begun: bool) -> str:
    """`head` of `text` without the part of a word at its end; whole if that word is a long one."""
    if text[len(head) : len(head) + 1].isspace():
        return head
    end = head.rfind(" ") + 1
    return head[:end] if (end or begun) and len(head) - end < _WORD_MOST else head


def _head(text: str, width: int) -> str:
    """As much of `text` as fits, without half a character."""
    if text.isascii():
        return text[:width]
    head = set_cell_size(text, width)
    while head and not text.startswith(head):
        head = head[:-1]
    return head


def _untabbed(line: Line) -> Iterator[Piece]:
    """The pieces with tabs expanded."""
    column = 0
    for piece in line:
        text = piece.text
        if "\t" in text:
            parts = []
            for part in re.split("(\t)", text):
                shown = " " * (_TAB - column % _TAB) if part == "\t" else part
                parts.append(shown)
                column += cell_len(shown)
            text = "".join(parts)
        else:
            column += cell_len(text)
        yield replace(piece, text=text)
