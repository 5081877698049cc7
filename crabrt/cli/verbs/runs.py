"""``crab runs``: the runs of the store, newest first."""

from __future__ import annotations

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.run_lines import run_json
from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, render_table
from crabrt.cli.tones import STYLES
from crabrt.cli.verb import Outcome, verb
from crabrt.journal import RunRow
from crabrt.timeline import amounts
from crabrt.timeline.runs import state_of
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import run_sign

_COLUMNS = (
    Column("run"),
    Column("status"),
    Column("turns", right=True),
    Column("started"),
    Column("last entry", spared=1),
    Column("parent", spared=2),
    Column("workspace", flexible=True, keeps_end=True),
)


@verb(
    "runs",
    examples=("crab runs", "crab runs --here             # only those of this directory"),
    exits=(Exit.INCOMPLETE, Exit.BUSY, Exit.DAMAGED),
)
@click.option("--here", is_flag=True, help="Only runs whose workspace is the current directory.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
def command(app: App, *, here: bool, limit: int | None) -> Outcome:
    """List the runs, newest first.

    A run is `running` while a live process owns it and `crashed` when its owner died before the
    end: `crab resume` takes it up again. A damaged run is listed with what is wrong (exit 3).
    """
    rows = app.index.runs() if app.has_store() else []
    if here:
        rows = [row for row in rows if row.workspace == app.cwd]
    rows = rows[:limit]
    damaged = [row for row in rows if row.problem is not None]

    def text(out: Screen) -> None:
        if not rows:
            where = "of this directory " if here else ""
            out.line(f"No runs {where}yet in {safe_text(str(app.home))}. Try: crab demo")
            return
        out.lines(render_table(out, _COLUMNS, (_cells(row) for row in rows)))
        for row in damaged:
            out.line(out.style(f"{row.run}: {safe_text(str(row.problem))}", "red"))

    return Outcome([run_json(row) for row in rows], text, Exit.INCOMPLETE if damaged else Exit.DONE)


def _cells(row: RunRow) -> list[Cell | str]:
    sign = run_sign(state_of(row))
    return [
        safe_text(row.run),
        Cell(safe_text(sign.word), STYLES[sign.tone]),
        str(row.turns),
        amounts.clock(row.started_ns),
        amounts.clock(row.updated_ns),
        safe_text(row.parent or ""),
        safe_path(row.workspace),
    ]
