"""Reports as pictures: horizontal bars on a logarithmic axis, as SVG, readable in light and dark.

What is drawn of a report is one figure for each who: `chart_of` chooses. The picture is plain text
with a style sheet inside, so that it needs nothing to be made or to be shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from crabrt.bench.report import FLOOR, OURS, Report, Row
from crabrt.errors import UsageError

PICTURED: Final = ("latency", "traffic")
"""Names of the benchmarks of which there is a picture."""

_WIDTH, _LABELS, _VALUES = 760, 230, 90
_TOP, _ROW, _GAP, _BAR = 52, 20, 30, 12
_STYLE: Final = """
svg { font: 13px system-ui, sans-serif; } .paper { fill: #fff; }
text { fill: #1f2937; } .title { font-weight: 600; font-size: 15px; } .group { font-weight: 600; }
.tick, .note { fill: #6b7280; font-size: 11px; } .grid { stroke: #e5e7eb; }
.ours { fill: #2563eb; } .floor { fill: #9ca3af; } .peer { fill: #d97706; }
.spread { stroke: #1f2937; stroke-opacity: .55; }
@media (prefers-color-scheme: dark) {
.paper { fill: #111827; } text { fill: #e5e7eb; } .tick, .note { fill: #9ca3af; }
.grid { stroke: #374151; } .ours { fill: #60a5fa; } .floor { fill: #6b7280; }
.peer { fill: #f59e0b; } .spread { stroke: #e5e7eb; }
}
"""
_LATENCY: Final = (
    ("decision none", OURS),
    ("known dirty set", OURS),
    ("with its scan", OURS),
    ("two appends and syncs", FLOOR),
    ("status", "git"),
    ("snapshot", "git"),
    ("snapshot", "restic"),
    ("snapshot", "borg"),
    ("snapshot", "cp"),
)
_NEEDED: Final = "allowed"


@dataclass(frozen=True)
class Figure:
    """One bar: a value, what it varied between, and whose it is (a class of the style sheet)."""

    label: str
    value: float
    low: float
    high: float
    whose: str


@dataclass(frozen=True)
class Chart:
    """A picture: groups of figures by their titles, in one unit."""

    title: str
    note: str
    groups: Mapping[str, Sequence[Figure]]
    shown: Callable[[float], str]


def chart_of(reports: Sequence[Report]) -> Chart:
    """What is drawn of reports of one benchmark.

    Raises:
        UsageError: they are of a benchmark that no picture is known of, or of several.
    """
    names = {report.name for report in reports}
    rows = [row for report in reports for row in report.rows]
    if names == {"latency"}:
        title = "A checkpoint of 20 changed files, by size of the tree"
        note = "median of interleaved rounds; line: fastest to slowest; logarithmic"
        return Chart(title, note, dict(_latency(rows)), _milliseconds)
    if names == {"traffic"}:
        note = "mean of all turns, without the journal; logarithmic"
        return Chart("Bytes stored a turn", note, dict(_traffic(rows)), _bytes)
    raise UsageError(
        f"there is no picture of {' and '.join(sorted(names)) or 'nothing'}",
        hint=f"there is one of {' or '.join(PICTURED)}",
    )


def _latency(rows: Sequence[Row]) -> Iterator[tuple[str, list[Figure]]]:
    scenarios = dict.fromkeys(row.scenario for row in rows)
    for scenario in scenarios:
        if not scenario.endswith(", 20 changed"):
            continue
        found = {(row.what, row.who): row for row in rows if row.scenario == scenario}
        figures = [
            Figure(
                f"{who}: {what}", row.series.median, row.series.low, row.series.high, _whose(who)
            )
            for what, who in _LATENCY
            if (row := found.get((what, who))) is not None
        ]
        if figures:
            yield scenario.removesuffix(", 20 changed"), figures


def _traffic(rows: Sequence[Row]) -> Iterator[tuple[str, list[Figure]]]:
    for scenario, title in (("all turns", "generated"), ("all recorded turns", "recorded")):
        figures = []
        for row in rows:
            if (row.scenario, row.what) == (scenario, "stored"):
                mean = sum(row.series.values) / len(row.series.values)
                label = "1.25 x zstd of what changed" if row.who == _NEEDED else row.who
                figures.append(Figure(label, mean, mean, mean, _whose(row.who)))
        if figures:
            turns = next(len(row.series.values) for row in rows if row.scenario == scenario)
            yield f"{title} turns ({turns})", sorted(figures, key=lambda one: one.value)


def _whose(who: str) -> str:
    return "ours" if who == OURS else "floor" if who in (FLOOR, _NEEDED) else "peer"


def _milliseconds(value: float) -> str:
    if value >= 1_000:
        return f"{value / 1_000:,.3g} s" if value < 100_000 else f"{value / 1_000:,.0f} s"
    return f"{value:.3g} ms"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"


def svg(chart: Chart) -> str:
    """The picture.

    Raises:
        UsageError: there is nothing in it.
    """
    figures = [figure for group in chart.groups.values() for figure in group]
    if not figures:
        raise UsageError("there is nothing to draw", hint="its 20 changed files, or its turns")
    axis = _Axis(
        min(max(figure.low, 1e-9) for figure in figures), max(figure.high for figure in figures)
    )
    height = _TOP + sum(_GAP + _ROW * len(group) for group in chart.groups.values()) + 24
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(chart.title)}</title><style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        _text(16, 24, chart.title, "title"),
        _text(16, 42, chart.note, "note"),
    ]
    for value in axis.decades:
        x = axis.at(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{height - 22}"/>')
        parts.append(_text(x, height - 8, chart.shown(value), "tick", "middle"))
    y = _TOP
    for title, group in chart.groups.items():
        y += _GAP
        parts.append(_text(16, y - 6, title, "group"))
        for figure in group:
            parts += _bar(figure, y, axis, chart.shown)
            y += _ROW
    return "\n".join([*parts, "</svg>\n"])


class _Axis:
    """From a value to its place, by whole decades."""

    def __init__(self, low: float, high: float) -> None:
        self._first = math.floor(math.log10(low))
        self._last = max(self._first + 1, math.ceil(math.log10(high)))

    @property
    def decades(self) -> list[float]:
        """The values at which there is a line."""
        return [10.0**power for power in range(self._first, self._last + 1)]

    def at(self, value: float) -> float:
        """Its place."""
        share = (math.log10(max(value, 1e-9)) - self._first) / (self._last - self._first)
        return _LABELS + max(0.0, share) * (_WIDTH - _LABELS - _VALUES)


def _bar(figure: Figure, y: int, axis: _Axis, shown: Callable[[float], str]) -> Iterator[str]:
    begin, end = _LABELS, max(axis.at(figure.value), _LABELS + 1.0)
    top, middle = y + (_ROW - _BAR) / 2, y + _ROW / 2
    yield _text(_LABELS - 8, middle + 4, figure.label, "", "end")
    yield (
        f'<rect class="{figure.whose}" x="{begin}" y="{top:g}" width="{end - begin:.1f}" '
        f'height="{_BAR}" rx="2"/>'
    )
    if figure.low < figure.high:
        low, high = axis.at(figure.low), axis.at(figure.high)
        yield f'<path class="spread" d="M{low:.1f} {middle:g}H{high:.1f}"/>'
        end = max(end, high)
    yield _text(end + 6, middle + 4, shown(figure.value), "")


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}"{where}>{escape(text)}</text>'
