"""The lines of a timeline: a turn, a mark between turns, what goes on now; for any width.

Columns come in an order of worth: a narrow terminal has the first of them, a wide one all. Those
that it has no room for make further pages, and stand in the place of the first ones when asked for.
The column of calls takes what room is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crabrt.timeline import amounts
from crabrt.timeline.marks import Mark
from crabrt.timeline.rows import Row
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Tone
from crabrt.timeline.timeline import Activity
from crabrt.tui.pieces import Line, Piece, aligned, cut, fit, sign_piece
from crabrt.tui.plots import wait_and_work

_CALLS_LEAST = 12
_BAR_LEAST, _BAR_MOST = 8, 40
_GAP = "  "
_WIDE = 130  # cells from which on signs have words
_DID_WIDTH = {False: 4, True: 18}


@dataclass(frozen=True, slots=True)
class Scale:
    """What the bars of all turns are measured by.

    Attributes:
        full_ms: what a whole bar stands for.
    """

    full_ms: float = 1.0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a timeline.

    Attributes:
        title: in the head.
        width: cells.
        draw: its cell of a row, of any width.
        right: aligned at the right.
    """

    title: str
    width: int
    draw: Callable[[Row], Line]
    right: bool = False

    def cell(self, row: Row) -> Line:
        """Its cell of a row, as wide as the column."""
        return aligned(self.draw(row), self.width, right=self.right)


_Placed = tuple[int, Column]  # the place from the left


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a width has room for; see `layout`.

    Attributes:
        width: of a line.
        columns: from left to right.
        pages: how many pages the columns make; 1: all of them are shown.
    """

    width: int
    columns: tuple[Column, ...]
    pages: int = 1

    def head(self) -> Line:
        """The titles."""
        cells = [fit(column.title, column.width, right=column.right) for column in self.columns]
        return cut((Piece(_GAP.join(cells), Tone.QUIET),), self.width)

    def row(self, row: Row) -> Line:
        """A turn."""
        found: list[Piece] = []
        for column in self.columns:
            found += [Piece(_GAP)] if found else []
            found += column.cell(row)
        return cut(found, self.width)


def layout(width: int, scale: Scale, page: int = 0) -> Layout:
    """The columns for lines of `width` cells.

    Args:
        width: cells.
        scale: of the bars.
        page: which of the pages; they come round again.
    """
    wide = width >= _WIDE
    number = Column("turn", 6, _number, right=True)
    did = (
        Column("did", _DID_WIDTH[wide], lambda row: (sign_piece(row.verdict),))
        if wide
        else Column("did", _DID_WIDTH[wide], _did)
    )
    safe = Column("safe", 13 if wide else 4, lambda row: (sign_piece(row.checkpoint, word=wide),))
    # in the order in which they are given room: place from the left, column
    always = [(0, number), (1, did), (7, safe)]
    wanted = [
        (3, Column("took", 8, _took, right=True)),
        (4, Column("files", 12, _files)),
        (5, Column("held", 7, _held, right=True)),
        (6, Column("stored", 9, _stored, right=True)),
        (8, Column("tokens", 7, _tokens, right=True)),
        (9, Column("cost", 7, _cost, right=True)),
        (10, Column("effects", 8, _effects)),
    ]
    bar_width = _bar_width(width)
    calls_width = max(_CALLS_LEAST if width >= 40 else 0, width // 5)
    left = width - (bar_width + len(_GAP) if bar_width else 0) - calls_width
    chosen = _fitting(always, left)
    left -= _room(chosen)
    pages = _pages(wanted, left) if len(chosen) == len(always) else [[]]
    chosen += pages[page % len(pages)]
    left -= _room(pages[page % len(pages)])
    if bar_width:
        title = "model ░ tools █" if bar_width >= 15 else "░ █"
        chosen.append((2, Column(title, bar_width, lambda row: _bar(row, scale, bar_width))))
    chosen.append((11, Column("calls", calls_width + left, _calls)))
    shown = tuple(column for _, column in sorted(chosen, key=lambda one: one[0]))
    return Layout(width, shown, len(pages))


def _fitting(columns: Sequence[_Placed], room: int) -> list[_Placed]:
    """The first of `columns`, as many as there is room for."""
    found: list[_Placed] = []
    for one in columns:
        if _room([*found, one]) > room:
            break
        found.append(one)
    return found


def _pages(columns: Sequence[_Placed], room: int) -> list[list[_Placed]]:
    """All of `columns`, on as few pages as can be; the last one is filled up with the first ones.

    Left out is what there is no room for even alone. Without room for any of them there is one
    page, with nothing on it.
    """
    columns = [one for one in columns if _room([one]) <= room]
    pages: list[list[_Placed]] = []
    told = 0
    while told < len(columns):
        new = _fitting(columns[told:], room)
        told += len(new)
        pages.append(new + (_fitting(columns, room - _room(new)) if pages else []))
    return pages or [[]]


def _room(columns: Sequence[_Placed]) -> int:
    """The cells that columns take, with the gaps behind them."""
    return sum(column.width + len(_GAP) for _, column in columns)


def mark_line(mark: Mark, width: int) -> Line:
    """What happened between two turns."""
    sign = mark.sign
    text = f"{'':>4}{sign.text} {safe_text(mark.about)}".rstrip()
    return cut(
        (Piece(text, sign.tone), Piece(f"  {amounts.clock(mark.wall_ns)}", Tone.QUIET)), width
    )


def activity_line(activity: Activity, now_ns: int, width: int, scale: Scale | None = None) -> Line:
    """What goes on right now, and how long already: as a bar, too, where there is a scale."""
    bar = _bar_width(width) if scale is not None else 0
    since_ms = max(0.0, (now_ns - activity.since_ns) / 1e6)
    line = [Piece(f"{'':>4}▶ ", activity_tone(activity), strong=True)]
    if bar and scale is not None and activity.kind != "loop":
        waits = since_ms if activity.kind == "model" else 0.0
        waited, worked, rest = wait_and_work(waits, since_ms - waits, scale.full_ms, bar)
        gap = f"{'':>{_before_bar(width)}}"
        line += [Piece(gap), Piece(waited, Tone.QUIET), Piece(worked, Tone.NEWS),
                 Piece(rest + _GAP)]  # fmt: skip
    return cut((*line, *activity_words(activity, since_ms)), width)


def activity_words(activity: Activity, since_ms: float) -> Line:
    """What goes on, in words, and how long already."""
    names = ", ".join(safe_text(call.model or call.name) for call in activity.calls)
    what = {"model": f"waiting for {names}", "tool": f"running {names}", "loop": "in the loop"}
    words = Piece(what[activity.kind], activity_tone(activity), strong=activity.kind != "loop")
    return (words, Piece(f"  {amounts.duration(since_ms)}"))


def activity_tone(activity: Activity) -> Tone:
    """Of what goes on."""
    return Tone.QUIET if activity.kind == "loop" else Tone.NEWS


def _bar_width(width: int) -> int:
    """Cells of the bars in lines of `width` cells; 0: there are none."""
    return min(_BAR_MOST, max(_BAR_LEAST, width // 6)) if width >= 60 else 0


def _before_bar(width: int) -> int:
    """Cells between the sign of what goes on and the column of bars."""
    return len(_GAP) * 2 + _DID_WIDTH[width >= _WIDE]


def _number(row: Row) -> Line:
    view = row.view
    signs = ("⚑" if view.labels else "") + ("★" if view.pinned else "")
    return (Piece(signs, Tone.NEWS), Piece(str(row.number), strong=row.newest))


def _did(row: Row) -> Line:
    sign = row.verdict
    return (Piece(sign.shape or sign.word[:4], sign.tone),)


def _bar(row: Row, scale: Scale, width: int) -> Line:
    waited, worked, rest = wait_and_work(row.view.model_wait_ms, row.tool_ms, scale.full_ms, width)
    return (Piece(waited, Tone.QUIET), Piece(worked, Tone.NEWS), Piece(rest))


def _took(row: Row) -> Line:
    return (Piece(amounts.duration(row.took_ms)),)


def _files(row: Row) -> Line:
    view = row.view
    counts = (
        (view.files_added, "+", Tone.GOOD),
        (view.files_changed, "~", Tone.FILES),
        (view.files_removed, "-", Tone.BAD),
    )
    found: list[Piece] = []
    for number, sign, tone in counts:
        if number:
            found += [Piece(" ")] if found else []
            found.append(Piece(f"{sign}{number}", tone))
    return tuple(found)


def _held(row: Row) -> Line:
    """How long the loop waited for its protection: less than a millisecond is nothing."""
    exposed = row.view.exposed_ms
    return (Piece(amounts.duration(exposed), Tone.WARNING),) if exposed >= 1 else ()


def _stored(row: Row) -> Line:
    stored = row.view.bytes_stored
    return (Piece(amounts.size(stored)),) if stored else ()


def _tokens(row: Row) -> Line:
    tokens = row.view.tokens_in + row.view.tokens_out
    return (Piece(_short(tokens), Tone.QUIET),) if tokens else ()


def _cost(row: Row) -> Line:
    cost = row.view.cost_usd
    return (Piece(f"${cost:.2f}" if cost >= 0.005 else "<$0.01", Tone.QUIET),) if cost else ()


def _effects(row: Row) -> Line:
    """How many calls acted outside by what was declared, and how many others may have."""
    declared, likely = len(row.effects), len(row.suspected)
    found = [Piece(f"X{declared}", Tone.EXTERNAL)] if declared else []
    if likely:
        found.append(Piece(f"{' ' * bool(found)}?{likely}", Tone.EXTERNAL))
    return tuple(found)


def _calls(row: Row) -> Line:
    found: list[Piece] = []
    for name, times in row.tool_counts().items():
        tone = Tone.BAD if name.endswith("!") else Tone.PLAIN
        text = safe_text(name) + (f" x{times}" if times > 1 else "")
        found += [Piece(" ")] if found else []
        found.append(Piece(text, tone))
    if row.view.labels:
        found.append(Piece(" ⚑ " + safe_text(", ".join(row.view.labels)), Tone.NEWS))
    if row.attention:
        found.append(Piece(" ! " + safe_text(row.attention[0]), Tone.WARNING))
    return tuple(found)


def _short(number: int) -> str:
    """``950``, ``12k``, ``3.4M``."""
    if number < 1_000:
        return str(number)
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.1f}M"
