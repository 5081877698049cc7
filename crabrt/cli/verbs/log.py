"""``crab log``: a line a turn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.envelope import envelope
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN
from crabrt.cli.screen import Screen
from crabrt.cli.table import render_table
from crabrt.cli.turn_lines import COLUMNS, needs_attention, turn_json, turn_row, with_durations
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.operations.touching import turns_touching

_POLL_S = 0.2


@verb(
    "log",
    examples=(
        "crab log last",
        "crab log fixer-7f3a -- src/app.py     # the turns that touched it",
        "crab log last --follow",
        "crab log last --json | jq '.data.turns[] | select(.verdict != [\"none\"])'",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("run", type=RUN)
@click.argument("paths", nargs=-1, metavar="[-- PATH...]", type=click.Path())
@click.option("-f", "--follow", is_flag=True, help="Go on as turns close, until the run ends.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the last N turns.")
def command(
    app: App, *, run: Target, paths: tuple[str, ...], follow: bool, limit: int | None
) -> Outcome:
    """Show a line for each turn of RUN.

    Verdict: what the turn did, as observed (F files, P processes, X external, · nothing).
    Checkpoint: ● durable, ◐ captured (survives SIGKILL, not yet power loss), ○ inherited (nothing
    changed), ✗ unprotected, - thinned by retention. `exposed` is how long the turn held the loop
    back. A turn that lost its protection is explained below the table.
    With --follow and --json, every turn is an envelope on a line of its own.
    """
    row = app.index.find(run.run)
    if follow:
        return Outcome(None, lambda _: None, _follow(app, row, limit), told=True)
    first = None if limit is None else max(0, row.turns + 1 - limit)
    turns = app.index.turns(row.run, first)
    timed = list(with_durations(row.view, turns))
    if paths:
        with app.progress("looking at what each turn changed"):
            touched = turns_touching(app.store, row, turns, [_relative(row, p) for p in paths])
        timed = [(turn, took) for turn, took in timed if turn.turn in touched]
    problems = [line for turn, _ in timed for line in needs_attention(turn)]

    def text(out: Screen) -> None:
        out.lines(render_table(out, COLUMNS, (turn_row(turn, took) for turn, took in timed)))
        out.lines(out.style(line, "yellow") for line in problems)
        if row.problem is not None:
            out.line(out.style(f"damaged: {row.problem}", "red"))

    data: dict[str, Any] | None = None
    if app.json:
        shown = [turn_json(turn, took) for turn, took in timed]
        data = {"run": row.run, "status": row.status, "turns": shown}
    return Outcome(data, text, Exit.DAMAGED if row.problem is not None else Exit.DONE)


def _follow(app: App, row: RunRow, limit: int | None) -> int:
    """Print turns as they close (and the open one when the run ends)."""
    shown = -1 if limit is None else row.turns - limit
    heading = True
    for timed in _closed_turns(app.index, row.run, shown):
        turn, took = timed
        if app.json:
            data = {"run": row.run, "turns": [turn_json(turn, took)]}
            app.out.line(envelope(app.command, data))
        else:
            lines = list(render_table(app.out, COLUMNS, [turn_row(turn, took)]))
            app.out.lines(lines if heading else lines[1:])
            app.out.lines(app.out.style(line, "yellow") for line in needs_attention(turn))
            heading = False
        app.out.flush()
    return Exit.DONE


def _closed_turns(index: RunIndex, run: str, shown: int) -> Iterator[tuple[TurnRow, float | None]]:
    """Each turn once it is settled: closed and its checkpoint known, or the run ended."""
    while True:
        index.refresh()
        row = index.run(run)
        ended = row.status != "running"
        for turn, took in with_durations(row.view, index.turns(run, shown + 1)):
            settled = turn.turn < row.turns and str(turn.protection) != "pending"
            if not (settled or ended):
                break
            yield turn, took
            shown = turn.turn
        if ended:
            return
        time.sleep(_POLL_S)


def _relative(row: RunRow, path: str) -> bytes:
    """A path as typed, relative to the run's workspace (or the current directory in it)."""
    given = os.fsencode(path)
    cwd = os.path.realpath(os.getcwdb())
    top = row.workspace
    base = cwd if cwd == top or cwd.startswith(top.rstrip(b"/") + b"/") else top
    return os.path.relpath(os.path.normpath(os.path.join(base, given)), top)
