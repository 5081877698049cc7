"""``crab bench``: measure on this machine, beside plain calls and peers."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from crabrt.bench import (
    LatencyOptions,
    Report,
    TrafficOptions,
    measure_latency,
    measure_traffic,
)
from crabrt.bench.peers import PEERS
from crabrt.bench.report import FLOOR, OURS, Row
from crabrt.cli import amounts
from crabrt.cli.app import App
from crabrt.cli.params import SIZE
from crabrt.cli.safe_text import safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, render_table
from crabrt.cli.verb import Outcome, verb

_ROWS = (
    Column("what"),
    Column("who"),
    Column("median", right=True),
    Column("min", right=True),
    Column("max", right=True),
)
_BARS = (
    Column("scenario"),
    Column("what"),
    Column("bar", flexible=True),
    Column("of it", right=True),
    Column("best", right=True),
    Column("worst", right=True),
    Column(""),
)


@verb(
    "bench",
    examples=(
        "crab bench latency                     # trees of 1,000 and 60,000 entries, all peers",
        "crab bench latency --entries 1000 --peers git --big-file 0",
        "crab bench traffic --json > traffic.json",
    ),
)
@click.argument("name", type=click.Choice(["latency", "traffic"]), required=False)
@click.option("--entries", type=click.IntRange(min=100), multiple=True, help="Sizes of the trees.")
@click.option(
    "--changed",
    type=click.IntRange(min=1),
    multiple=True,
    help="latency: how many files change at once (default: 1, 20 and 1000).",
)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--big-file", type=SIZE, default="1G", show_default=True, help="latency: 0: none.")
@click.option("--turns", type=click.IntRange(min=1), default=42, show_default=True, help="traffic.")
@click.option("--seed", type=int, default=1, show_default=True, help="traffic: of its turns.")
@click.option(
    "--peers",
    default=",".join(PEERS),
    show_default=True,
    help="With whom to compare; what is not installed is listed as absent.",
)
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True),
    help="Work in a new directory below this one: its file system is measured.",
)
def command(
    app: App, *, name: str | None, peers: str, scratch: str | None, **given: Any
) -> Outcome:
    """Measure what protection costs here: latency, traffic, or (without NAME) both.

    Every figure is the median of interleaved repetitions, with the spread beside it. The floor is
    the same work done by plain calls. A bar is met where the median of its ratios is at most 1.
    Needs gigabytes of scratch space and, with 60,000 entries and all peers, some minutes.
    """
    wanted = _peer_names(peers)
    with _scratch(scratch) as directory:
        say = _narrator(app)
        reports = []
        if name in (None, "latency"):
            latency = LatencyOptions(
                scratch=directory,
                entries=given["entries"] or LatencyOptions.entries,
                changed=given["changed"] or LatencyOptions.changed,
                repetitions=given["repetitions"],
                peers=wanted,
                big_file_bytes=given["big_file"],
            )
            reports.append(measure_latency(latency, os.environ, say))
        if name in (None, "traffic"):
            traffic = TrafficOptions(
                scratch=directory,
                entries=(given["entries"] or (TrafficOptions.entries,))[0],
                turns=given["turns"],
                seed=given["seed"],
                peers=wanted,
            )
            reports.append(measure_traffic(traffic, os.environ, say))

    def text(out: Screen) -> None:
        for report in reports:
            _print(out, report)

    return Outcome({"reports": [report.data() for report in reports]}, text)


def _peer_names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


@contextlib.contextmanager
def _scratch(below: str | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="crab-bench-", dir=below))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _narrator(app: App) -> Callable[[str], None]:
    """Says what is being done, on a terminal, one line at a time."""

    def say(what: str) -> None:
        if app.err.terminal and not app.json:
            app.err.line(app.err.style(what, "dim"))
            app.err.flush()

    return say


def _print(out: Screen, report: Report) -> None:
    facts = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    out.line(out.style(report.name, "bold") + f": {safe_text(facts)}")
    scenario = ""
    rows: list[Row] = []
    for row in [*report.rows, None]:
        if row is None or row.scenario != scenario:
            if rows:
                out.line()
                out.line(out.style(scenario, "bold"))
                out.lines(render_table(out, _ROWS, (_cells(one) for one in rows)))
            rows = []
        if row is not None:
            scenario = row.scenario
            rows.append(row)
    out.line()
    out.lines(render_table(out, _BARS, _bar_cells(report)))
    for name, why in report.absent.items():
        out.line(f"absent: {name} ({why})")
    out.line()


def _cells(row: Row) -> list[Cell]:
    style = {OURS: ("bold",), FLOOR: ("dim",)}.get(row.who, ())
    figures = (row.series.median, row.series.low, row.series.high)
    shown = [_figure(figure, row.unit) for figure in figures]
    return [Cell(text, style) for text in (row.what, row.who, *shown)]


def _figure(value: float, unit: str) -> str:
    if unit != "ms":
        return f"{value:,.0f}" if value < 1 << 20 else amounts.size(int(value))
    return f"{value:,.2f} ms" if value < 100 else f"{value:,.0f} ms"


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
