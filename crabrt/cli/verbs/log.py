"""``crab log``: a line a turn."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator

import click

from crabrt.cli.app import App
from crabrt.cli.envelope import envelope
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN
from crabrt.cli.run_lines import how_it_ended, how_to_go_on, run_json, run_title
from crabrt.cli.safe_text import safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.stat_lines import stats_json, stats_lines
from crabrt.cli.table import Cell, render_table
from crabrt.cli.turn_lines import COLUMNS, needs_attention, turn_json, turn_row, with_durations
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import LAST, Target
from crabrt.errors import UsageError
from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.journal.views import TurnView
from crabrt.operations.statistics import statistics_of
from crabrt.operations.touching import turns_touching

_POLL_S = 0.2
_SHOWN_PROBLEMS = 8
_WINDOW = 500


@verb(
    "log",
    examples=(
        "crab log",
        "crab log fixer-7f3a -- src/app.py     # the turns that touched it",
        "crab log -- src/app.py                # ... in the last run here",
        "crab log --follow",
        "crab log last --stats                 # what the turns did; were the priors right?",
        "crab log last --json | jq '.data.turns[] | select(.verdict != [\"none\"])'",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
    about_last=True,
)
@click.argument("run", type=RUN, default=LAST)
@click.argument("paths", nargs=-1, metavar="[-- PATH...]", type=click.Path())
@click.option("-f", "--follow", is_flag=True, help="Go on as turns close, until the run ends.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the last N turns.")
@click.option("--stats", is_flag=True, help="What the turns come to, instead of the turns.")
def command(
    app: App, *, run: Target, paths: tuple[str, ...], follow: bool, limit: int | None, stats: bool
) -> Outcome:
    """Show a line for each turn of RUN (default: the last one).

    Verdict: what the turn did, as observed (F files, P processes, X external, · nothing).
    Checkpoint: ● durable, ◐ captured (survives SIGKILL, not yet power loss), ○ inherited (nothing
    changed), ✗ unprotected, - thinned by retention. `exposed` is how long the turn held the loop
    back. A turn that lost its protection is explained below the table. On a narrow terminal some
    columns are left out; piped, all are there.
    With --follow and --json, every turn is an envelope on a line of its own. `took` leaves out the
    time between a crash and the resume.

    With --stats: the share of turns that did nothing, changed files, or called something external;
    how long turns held the loop back (half of them at most p50, 99 of 100 at most p99); and for
    each tool how often its prior is what its turns were seen to do: what it was declared to do, or
    (`auto: ...`) what its call was taken for. A turn in which other tools may have done it is
    `unclear`. Whether a call was external is judged where the network was watched.
    """
    row = app.index.find(run.run)
    if follow:
        _refuse_with_follow(paths=bool(paths), stats=stats)
        return Outcome(None, lambda _: None, _follow(app, row, limit), told=True)
    first = None if limit is None else max(0, row.turns + 1 - limit)
    timed = with_durations(row.view, _in_windows(app.index, row, first or 0))
    if paths:
        whole = list(timed)
        with app.progress("looking at what each turn changed"):
            touched = turns_touching(
                app.store,
                row,
                [turn for turn, _ in whole],
                [_relative(row, p, app.cwd) for p in paths],
            )
        timed = (pair for pair in whole if pair[0].turn in touched)
    if stats:
        return _stats(row, [turn for turn, _ in timed])
    if app.json:
        shown = [turn_json(turn, took) for turn, took in timed]
        return Outcome({**run_json(row), "turns": shown}, lambda _: None, _exit_code(row))
    return Outcome(None, lambda out: _show(out, row, timed, chosen=bool(paths)), _exit_code(row))


def _in_windows(index: RunIndex, row: RunRow, first: int) -> Iterator[TurnRow]:
    """The turns from `first` on, a window at a time: a long run takes no more memory."""
    for at in range(first, row.turns + 1, _WINDOW):
        yield from index.turns(row.run, at, min(at + _WINDOW - 1, row.turns))


def _show(
    out: Screen, row: RunRow, timed: Iterator[tuple[TurnView, float | None]], *, chosen: bool
) -> None:
    """The table, and what a person should read below it."""
    problems: deque[str] = deque(maxlen=_SHOWN_PROBLEMS)
    shown = met = 0
    live = row.status == "running"

    def rows() -> Iterator[list[Cell | str]]:
        nonlocal shown, met
        for turn, took in timed:
            attention = needs_attention(turn)
            problems.extend(attention)
            shown, met = shown + 1, met + len(attention)
            yield turn_row(turn, took, live=live)

    out.line(run_title(out, row))
    out.lines(render_table(out, COLUMNS, rows()))
    if chosen and not shown:
        out.line("No turn touched that.")
    for line in problems:
        out.paragraph(line, "yellow", indent=2)
    if met > len(problems):
        more = met - len(problems)
        out.line(f"... and {more} more of the turns before (crab show {row.run}@TURN)")
    out.lines(_afterwards(out, row))


def _refuse_with_follow(*, paths: bool, stats: bool) -> None:
    if paths:
        raise UsageError("--follow shows every turn: it takes no PATH")
    if stats:
        raise UsageError("--stats is about turns that are over: not with --follow")


def _stats(row: RunRow, turns: list[TurnRow]) -> Outcome:
    """What the turns come to."""
    found = statistics_of(turns)

    def text(out: Screen) -> None:
        out.line(run_title(out, row))
        out.lines(stats_lines(out, found))
        out.lines(_afterwards(out, row))

    return Outcome({**run_json(row), "stats": stats_json(found)}, text, _exit_code(row))


def _exit_code(row: RunRow) -> Exit:
    return Exit.DONE if row.problem is None else Exit.DAMAGED


def _follow(app: App, row: RunRow, limit: int | None) -> int:
    """Print turns as they close (and the open one when the run ends)."""
    shown = -1 if limit is None else row.turns - limit
    attention: list[str] = []

    def rows() -> Iterator[list[Cell | str]]:
        for turn, took in _closed_turns(app.index, row.run, shown):
            attention[:] = needs_attention(turn)
            yield turn_row(turn, took, live=app.index.run(row.run).status == "running")

    if app.json:
        for turn, took in _closed_turns(app.index, row.run, shown):
            data = {"run": row.run, "turns": [turn_json(turn, took)]}
            app.out.line(envelope(app.command, data))
            app.out.flush()
        return _exit_code(app.index.run(row.run))
    app.out.line(run_title(app.out, row))
    app.out.flush()
    lines = render_table(app.out, COLUMNS, rows(), live=True)
    app.out.lines(itertools.islice(lines, 1))  # the heading; a row's attention is its own
    for line in lines:
        app.out.line(line)
        for text in attention:
            app.out.paragraph(text, "yellow", indent=2)
        app.out.flush()
    row = app.index.run(row.run)
    app.out.lines(_afterwards(app.out, row))
    return _exit_code(row)


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


def _afterwards(out: Screen, row: RunRow) -> Iterator[str]:
    """What is wrong with the run, how it ended, and how to go on."""
    if row.problem is not None:
        yield out.style(f"damaged: {safe_text(row.problem)}", "red")
    ended = how_it_ended(row)
    if ended is not None:
        yield out.style(ended, "red")
    step = how_to_go_on(row)
    if step is not None:
        yield step


def _relative(row: RunRow, path: str, cwd: bytes) -> bytes:
    """A path as typed, relative to the run's workspace (or the current directory in it)."""
    top = row.workspace
    base = cwd if cwd == top or cwd.startswith(top.rstrip(b"/") + b"/") else top
    return os.path.relpath(os.path.normpath(os.path.join(base, os.fsencode(path))), top)
