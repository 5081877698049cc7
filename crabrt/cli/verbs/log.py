"""``crab log``: a line a turn."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.cut_off_lines import cut_off_json, cut_off_line
from crabrt.cli.envelope import envelope
from crabrt.cli.exits import Exit
from crabrt.cli.going_on import going_on
from crabrt.cli.params import RUN
from crabrt.cli.run_lines import run_json, run_title
from crabrt.cli.screen import Screen
from crabrt.cli.stat_lines import stats_json, stats_lines
from crabrt.cli.table import Row as TableRow
from crabrt.cli.table import render_table
from crabrt.cli.turn_lines import COLUMNS, mark_json, mark_row, turn_json, turn_row
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import LAST, Target
from crabrt.core.verdicts import Protection
from crabrt.errors import CrabError, UsageError
from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.journal.restores import RestoreLog
from crabrt.journal.views import RUNNING
from crabrt.operations.cut_off import CutOff, cut_off
from crabrt.operations.statistics import statistics_of
from crabrt.operations.touching import touching
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.marks import (
    Mark,
    among,
    marks_of_relatives,
    marks_of_restores,
    workspace_state,
)
from crabrt.timeline.rows import Row, rows_of
from crabrt.timeline.runs import how_it_ended
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.timeline import Timeline
from crabrt.timeline.troubles import in_words

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
    Between the turns stands what happened there: resumes, rollbacks, forks and child runs, the end,
    restores and undos of the files; not with PATH, which asks for turns.
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
    views = _in_windows(app.index, row, first or 0)
    rows = rows_of(row.view, views, live=row.status == RUNNING)
    if paths:
        whole = list(rows)
        with app.progress("looking at what each turn changed"):
            asked = [_relative(row, p, app.cwd) for p in paths]
            found = touching(app.store, row.workspace, (one.view for one in whole), asked)
            touched = {number for number, changed in found if changed}
        rows = (one for one in whole if one.number in touched)
    if stats:
        return _stats(app, row, [one.view for one in rows])
    marks, trouble = ([], None) if paths else _beside(app, row)
    lines = rows if paths else among(rows, marks)
    code = _exit_code(row)
    if trouble is not None and code is Exit.DONE:
        code = Exit.INCOMPLETE
    if app.json:
        return Outcome(_data(app, row, list(lines), trouble), lambda _: None, code)
    return Outcome(
        None, lambda out: _show(out, app, row, lines, chosen=bool(paths), trouble=trouble), code
    )


def _beside(app: App, row: RunRow) -> tuple[list[Mark], str | None]:
    """What the run's journal does not tell: its forks and children, and restores of its files.

    And why it is not known what was restored, where that is so.
    """
    marks = marks_of_relatives(row.run, app.index.runs())
    state_dir = workspace_state(app.home, row.view)
    if state_dir is None:
        return marks, None
    try:
        return [*marks, *marks_of_restores(RestoreLog(state_dir).records())], None
    except CrabError as error:
        return marks, f"restores of the workspace are not shown: {in_words(error)}"


def _cut_off(app: App, row: RunRow) -> tuple[CutOff | None, str | None]:
    """A restore of its workspace that was killed; and why that is not known, where it is not."""
    state_dir = workspace_state(app.home, row.view)
    if state_dir is None:
        return None, None
    try:
        return cut_off(app.home, app.index, row.workspace_id, row.workspace, state_dir), None
    except CrabError as error:
        return None, f"whether a restore was killed is not known: {in_words(error)}"


def _data(
    app: App, row: RunRow, lines: Sequence[Row | Mark], trouble: str | None
) -> dict[str, Any]:
    killed, unknown = _cut_off(app, row)
    return {
        **run_json(row),
        "turns": [turn_json(one) for one in lines if isinstance(one, Row)],
        "marks": [mark_json(one) for one in lines if isinstance(one, Mark)],
        "not_shown": [text for text in (trouble or unknown,) if text is not None],
        "killed_restore": cut_off_json(app, killed, row.workspace),
    }


def _in_windows(index: RunIndex, row: RunRow, first: int) -> Iterator[TurnRow]:
    """The turns from `first` on, a window at a time: a long run takes no more memory."""
    for at in range(first, row.turns + 1, _WINDOW):
        yield from index.turns(row.run, at, min(at + _WINDOW - 1, row.turns))


def _show(
    out: Screen,
    app: App,
    row: RunRow,
    lines: Iterable[Row | Mark],
    *,
    chosen: bool,
    trouble: str | None,
) -> None:
    """The table, and what a person should read below it."""
    problems: deque[tuple[int, str]] = deque(maxlen=_SHOWN_PROBLEMS)
    shown = met = left_out = 0

    def rows() -> Iterator[TableRow]:
        nonlocal shown, met, left_out
        for one in lines:
            if isinstance(one, Mark):
                yield mark_row(one)
                continue
            for line in _attention(one):
                if len(problems) == _SHOWN_PROBLEMS:
                    left_out = problems[0][0]
                problems.append((one.number, line))
            shown, met = shown + 1, met + len(one.attention)
            yield turn_row(one)

    out.line(run_title(out, row))
    out.lines(render_table(out, COLUMNS, rows()))
    if chosen and not shown:
        out.line("No turn touched that.")
    for _, line in problems:
        out.paragraph(line, "yellow", indent=2)
    if met > len(problems):
        more = met - len(problems)
        see = app.typed("show", f"{row.run}@{left_out}")
        out.line(f"... and {more} more of the turns up to {left_out} ({see})")
    if trouble is not None:
        out.paragraph(safe_text(trouble), "red", indent=2)
    out.lines(_afterwards(out, app, row))


def _attention(row: Row) -> list[str]:
    """What a person should read below the table about a turn."""
    return [safe_text(f"turn {row.number}: {line}") for line in row.attention]


def _refuse_with_follow(*, paths: bool, stats: bool) -> None:
    if paths:
        raise UsageError("--follow shows every turn: it takes no PATH")
    if stats:
        raise UsageError("--stats is about turns that are over: not with --follow")


def _stats(app: App, row: RunRow, turns: list[TurnRow]) -> Outcome:
    """What the turns come to."""
    found = statistics_of(turns)

    def text(out: Screen) -> None:
        out.line(run_title(out, row))
        out.lines(stats_lines(out, found))
        out.lines(_afterwards(out, app, row))

    return Outcome({**run_json(row), "stats": stats_json(found)}, text, _exit_code(row))


def _exit_code(row: RunRow) -> Exit:
    return Exit.DONE if row.problem is None else Exit.DAMAGED


def _follow(app: App, row: RunRow, limit: int | None) -> int:
    """Print turns as they close (and the open one when the run ends)."""
    shown = -1 if limit is None else row.turns - limit
    attention: list[str] = []
    app.keep(feed := RunFeed(app.home, row.run))

    def rows() -> Iterator[TableRow]:
        for one in _settled(feed, shown):
            attention[:] = [] if isinstance(one, Mark) else _attention(one)
            yield mark_row(one) if isinstance(one, Mark) else turn_row(one)

    if app.json:
        for one in _settled(feed, shown):
            if isinstance(one, Row):
                data = {"run": row.run, "turns": [turn_json(one)]}
                app.out.line(envelope(app.command, data))
                app.out.flush()
        app.index.refresh()
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
    app.index.refresh()
    row = app.index.run(row.run)
    app.out.lines(_afterwards(app.out, app, row))
    return _exit_code(row)


def _settled(feed: RunFeed, shown: int) -> Iterator[Row | Mark]:
    """Each turn behind `shown` once it is settled: closed and its checkpoint known, or the end.

    And what happened behind each of them, as soon as it is known.
    """
    first = shown + 1
    told: set[Mark] = set()
    for state in feed.follow():
        if state.reading is not None:
            continue
        for row in state.rows.after(shown):
            pending = row.newest or row.view.protection is Protection.PENDING
            if state.live and pending:
                break
            yield from _new(state, first, shown, told)
            yield row
            shown = row.number
        yield from _new(state, first, shown, told)
        if not state.live:
            return


def _new(state: Timeline, first: int, last: int, told: set[Mark]) -> list[Mark]:
    """What happened behind the turns `first` to `last` and was not `told` before; now it is."""
    found = [mark for mark in state.marks if first <= mark.after <= last and mark not in told]
    told.update(found)
    return found


def _afterwards(out: Screen, app: App, row: RunRow) -> Iterator[str]:
    """What is wrong with the run, how it ended, and how to go on."""
    if row.problem is not None:
        yield out.style(f"damaged: {safe_text(row.problem)}", "red")
    killed, unknown = _cut_off(app, row)
    if killed is not None:
        yield out.style(cut_off_line(app, killed, row.workspace), "red")
    if unknown is not None:
        yield out.style(safe_text(unknown), "red")
    ended = how_it_ended(row.status, row.view)
    if ended is not None:
        yield out.style(ended, "red")
    yield from going_on(app, row)


def _relative(row: RunRow, path: str, cwd: bytes) -> bytes:
    """A path as typed, relative to the run's workspace (or the current directory in it)."""
    top = row.workspace
    base = cwd if cwd == top or cwd.startswith(top.rstrip(b"/") + b"/") else top
    return os.path.relpath(os.path.normpath(os.path.join(base, os.fsencode(path))), top)
