"""Columns of text: aligned, streamed, and cut only where a terminal would wrap them.

Rows are laid out in blocks, so that a journal of any length is shown with a bounded memory; the
widths of the first block hold until a later row needs more.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from crabrt.cli.screen import Screen

_BLOCK_ROWS = 500
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column. `right` aligns numbers; `flexible` is cut first when a terminal is too narrow."""

    title: str
    right: bool = False
    flexible: bool = False


@dataclass(frozen=True)
class Cell:
    """Text of one cell (already safe), and its styles."""

    text: str
    styles: tuple[str, ...] = field(default=())


def cell_width(text: str) -> int:
    """Terminal columns that `text` takes."""
    return len(text) if text.isascii() else _wide_width(text)


@functools.lru_cache(maxsize=4096)  # the same few words with a symbol in them, thousands of times
def _wide_width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def render_table(
    screen: Screen, columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]]
) -> Iterator[str]:
    """The lines of a table, heading first; empty columns are left out.

    That is known only of a table that fits into one block; a longer one keeps all its columns.
    """
    source = iter(rows)
    block = [_cells(row) for row in itertools.islice(source, _BLOCK_ROWS)]
    whole = len(block) < _BLOCK_ROWS
    kept = [i for i in range(len(columns)) if not whole or any(row[i].text for row in block)]
    shown = [columns[i] for i in kept]
    widths = [cell_width(column.title) for column in shown]
    heading = True
    while block:
        rows_kept = [[row[i] for i in kept] for row in block]
        widths = [
            max(width, *(cell_width(row[i].text) for row in rows_kept))
            for i, width in enumerate(widths)
        ]
        fitted = _fit(widths, shown, screen.width)
        if heading:
            titles = [Cell(column.title, ("bold",)) for column in shown]
            yield _line(screen, titles, shown, fitted)
            heading = False
        for row in rows_kept:
            yield _line(screen, row, shown, fitted)
        block = [_cells(row) for row in itertools.islice(source, _BLOCK_ROWS)]


def _cells(row: Sequence[Cell | str]) -> list[Cell]:
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]


def _fit(widths: list[int], columns: Sequence[Column], available: int) -> list[int]:
    fitted = list(widths)
    excess = sum(fitted) + len(_GAP) * (len(fitted) - 1) - available
    flexible = [i for i, column in enumerate(columns) if column.flexible]
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda i: fitted[i])
        floor = max(8, cell_width(columns[widest].title))
        cut = min(excess, fitted[widest] - floor)
        if cut <= 0:
            break
        fitted[widest] -= cut
        excess -= cut
    return fitted


def _line(
    screen: Screen, row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int]
) -> str:
    parts = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        text = cell.text
        missing = width - cell_width(text)
        if missing < 0:
            text = _cut(text, width)
            missing = width - cell_width(text)
        styled = screen.style(text, *cell.styles) if screen.colour else text
        parts.append(" " * missing + styled if column.right else styled + " " * missing)
    return _GAP.join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    kept = 0
    for i, char in enumerate(text):
        kept += cell_width(char)
        if kept > width - 1:
            return text[:i] + "…"
    return text
