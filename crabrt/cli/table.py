"""Columns of text: aligned, streamed, and left out or cut only where a terminal would wrap them.

Rows are laid out in blocks, so that a journal of any length is shown with a bounded memory; the
widths of the first block hold until a later row needs more. What is shown as it happens is laid out
row by row, in widths that were fixed before.
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
_COMFORT = 16  # columns of text that a flexible one keeps while others can be spared


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its heading.
        right: numbers are aligned right.
        flexible: it may be cut on a terminal that is too narrow.
        keeps_end: what is cut off is the beginning, as of a path.
        spared: above 0: it is left out on a terminal that is too narrow, the highest first.
        usual: how wide it usually gets, for rows that are shown one by one.
    """

    title: str
    right: bool = False
    flexible: bool = False
    keeps_end: bool = False
    spared: int = 0
    usual: int = 0


@dataclass(frozen=True)
class Cell:
    """Text of one cell (already safe), and its styles."""

    text: str
    styles: tuple[str, ...] = field(default=())


Row = Sequence[Cell | str] | Cell
"""A line: a cell for each column, or one cell that takes all of it."""


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
    screen: Screen,
    columns: Sequence[Column],
    rows: Iterable[Row],
    *,
    live: bool = False,
) -> Iterator[str]:
    """The lines of a table, heading first; empty columns are left out.

    That is known only of a table that fits into one block; a longer one keeps all its columns. With
    `live` every row is given out as it comes, and columns are as wide as they usually get.
    """
    source = iter(rows)
    size = 1 if live else _BLOCK_ROWS
    block = [_cells(row) for row in itertools.islice(source, size)]
    whole = not live and len(block) < _BLOCK_ROWS
    in_columns = [row for row in block if isinstance(row, list)]
    kept = [i for i in range(len(columns)) if not whole or any(row[i].text for row in in_columns)]
    widths = {i: max(cell_width(columns[i].title), columns[i].usual if live else 0) for i in kept}
    heading = True
    while block:
        in_columns = [row for row in block if isinstance(row, list)]
        for i in kept:
            widths[i] = max([widths[i], *(cell_width(row[i].text) for row in in_columns)])
        if heading:
            kept = _affordable(columns, kept, widths, screen.width)
        shown = [columns[i] for i in kept]
        fitted = _fit([widths[i] for i in kept], shown, screen.width)
        if heading:
            titles = [Cell(column.title, ("bold",)) for column in shown]
            yield _line(screen, titles, shown, fitted)
            heading = False
        for row in block:
            if isinstance(row, Cell):
                yield _alone(screen, row)
            else:
                yield _line(screen, [row[i] for i in kept], shown, fitted)
        block = [_cells(row) for row in itertools.islice(source, size)]


def _cells(row: Row) -> list[Cell] | Cell:
    if isinstance(row, Cell):
        return row
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]


def _alone(screen: Screen, cell: Cell) -> str:
    text = cell.text
    if cell_width(text) > screen.width:
        text = _cut(text, screen.width, keeps_end=False)
    return screen.style(text, *cell.styles)


def _affordable(
    columns: Sequence[Column], kept: list[int], widths: dict[int, int], available: int
) -> list[int]:
    """`kept` without what has to be spared so that the rest is readable in `available` columns."""

    def needed(places: list[int]) -> int:
        each = (min(widths[i], _COMFORT) if columns[i].flexible else widths[i] for i in places)
        return sum(each) + len(_GAP) * (len(places) - 1)

    while needed(kept) > available:
        dearest = max(kept, key=lambda i: columns[i].spared)
        if not columns[dearest].spared:
            break
        kept = [i for i in kept if i != dearest]
    return kept


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
            text = _cut(text, width, keeps_end=column.keeps_end)
            missing = width - cell_width(text)
        styled = screen.style(text, *cell.styles) if screen.colour else text
        parts.append(" " * missing + styled if column.right else styled + " " * missing)
    return _GAP.join(parts).rstrip()


def _cut(text: str, width: int, *, keeps_end: bool) -> str:
    kept = 0
    for i, char in enumerate(reversed(text) if keeps_end else text):
        kept += cell_width(char)
        if kept > width - 1:
            return "…" + text[len(text) - i :] if keeps_end else text[:i] + "…"
    return text
