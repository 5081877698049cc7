"""The tables of ``crab bench``: rows by scenario, bars, who was absent, and what repeats them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from crabrt.bench import Report
from crabrt.bench.report import FLOOR, OURS, Row
from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, render_table
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_ROWS = (
    Column("what"),
    Column("who"),
    Column("median", right=True),
    Column("min", right=True),
    Column("max", right=True),
)
_COUNTS = (Column("what"), Column("who"), Column("", right=True))
_BARS = (
    Column("scenario"),
    Column("what"),
    Column("bar", flexible=True),
    Column("of it", right=True),
    Column("best", right=True),
    Column("worst", right=True),
    Column(""),
)
_SHOWN_WRONG = 20


def print_report(out: Screen, report: Report) -> None:
    """All of it, for people."""
    facts = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    out.line(out.style(report.name, "bold") + f": {safe_text(facts)}")
    out.line(out.style(safe_text(report.command), "dim"))
    out.paragraph(safe_text(", ".join(_setting(*item) for item in report.settings.items())), "dim")
    for scenario, rows in groupby(report.rows, lambda row: row.scenario):
        _print_rows(out, scenario, list(rows))
    if report.bars:
        out.line()
        out.lines(render_table(out, _BARS, _bar_cells(report)))
    out.line()
    for name, why in report.absent.items():
        out.paragraph(f"absent: {safe_text(name)} ({safe_text(why)})", "dim")
    for note in report.notes:
        out.paragraph(safe_text(note), "dim")
    for text in report.wrong[:_SHOWN_WRONG]:
        out.paragraph(f"wrong: {safe_text(text)}", "red")
    if len(report.wrong) > _SHOWN_WRONG:
        out.line(f"... and {len(report.wrong) - _SHOWN_WRONG} more (--json has them all)")
    out.line()


def _setting(name: str, value: object) -> str:
    shown = " ".join(map(str, value)) if isinstance(value, list) else value
    return f"{name.replace('_', ' ')} {'all' if value is None else shown}"


def _print_rows(out: Screen, scenario: str, rows: Sequence[Row]) -> None:
    out.line()
    out.line(out.style(safe_text(scenario), "bold"))
    for single, group in groupby(rows, lambda row: len(row.series.values) == 1):
        if single:
            out.lines(render_table(out, _COUNTS, (_count_cells(row) for row in group)))
        else:
            out.lines(render_table(out, _ROWS, (_cells(row) for row in group)))


def _cells(row: Row) -> list[Cell]:
    figures = (row.series.median, row.series.low, row.series.high)
    shown = [_figure(figure, row.unit) for figure in figures]
    return [Cell(safe_text(text), _style(row)) for text in (row.what, row.who, *shown)]


def _count_cells(row: Row) -> list[Cell]:
    texts = (row.what, row.who, _figure(row.series.median, row.unit))
    return [Cell(safe_text(text), _style(row)) for text in texts]


def _style(row: Row) -> tuple[str, ...]:
    return {OURS: ("bold",), FLOOR: ("dim",)}.get(row.who, ())


def _figure(value: float, unit: str) -> str:
    match unit:
        case "ms":
            return f"{value:,.2f} ms" if value < 100 else f"{value:,.0f} ms"
        case "bytes":
            return f"{value:,.0f}" if value < 1 << 20 else amounts.size(int(value))
        case "turns" | "runs" | "images":
            return f"{value:,.0f}"
        case "x":
            return f"{value:.4f}"
        case _:
            return f"{value:,.1f} {unit}"


def _bar_cells(report: Report) -> Iterator[list[Cell]]:
    for bar in report.bars:
        verdict = Cell("met", ("green",)) if bar.met else Cell("missed", ("yellow",))
        ratios = (bar.ratio.median, bar.ratio.low, bar.ratio.high)
        yield [
            Cell(bar.scenario),
            Cell(bar.what),
            Cell(bar.goal),
            *(Cell(f"{ratio:.2f}") for ratio in ratios),
            verdict,
        ]
