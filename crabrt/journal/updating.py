"""Bringing the index's rows of one run up to its files: further from where it stands, or anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from crabrt.core.clock import boot_id
from crabrt.errors import CrabError, NotFound
from crabrt.journal import rows
from crabrt.journal.history import History
from crabrt.journal.inbox import Marks, read_marks
from crabrt.journal.reading import Record, read_journal
from crabrt.journal.repairing import whole_records
from crabrt.journal.rows import Problem, StoredRun
from crabrt.journal.turntable import FoldState
from crabrt.journal.watermarks import Watermark, look, mark_folded, settled, still_hold

_FLUSH_TURNS = 512


def is_stale(stored: StoredRun, directory: Path) -> bool:
    """Whether a run may have to be folded further, or again."""
    if stored.seen != look(directory):
        return True
    return stored.boot != boot_id() and not settled(stored.folded)


def take_in(
    connection: sqlite3.Connection, run: str, directory: Path, stored: StoredRun | None
) -> None:
    """Bring the rows of `run` up to its files."""
    if stored is not None:
        rows.check_turns(connection, run, stored)
    seen, boot = look(directory), boot_id()
    folded: tuple[Watermark, ...] = ()
    problem: Problem | None = None
    state = None
    if stored is not None and still_hold(
        directory, stored.folded, stored.seen, seen, rebooted=stored.boot != boot
    ):
        folded = stored.folded
        state = _fold_further(connection, run, directory, stored.state)
    if state is None:
        rows.forget_run(connection, run)
        state, problem = _fold_anew(connection, run, directory)
    marks = Marks() if stored is None else stored.marks
    try:
        marks = read_marks(directory)
    except CrabError as error:
        problem = problem or Problem.of(error)
    if state.after is None and problem is None:
        rows.forget_run(connection, run)  # nothing was written to it yet
        return
    if problem is not None:
        folded = ()
    elif state.after is not None:
        folded = mark_folded(directory, state.after, folded)
    rows.save_run(
        connection,
        run,
        StoredRun(
            state=state,
            seen=None if problem is not None and problem.passing else seen,
            folded=folded,
            boot=boot,
            marks=marks,
            turns=rows.count_turns(connection, run),
            external=rows.count_external(connection, run),
            problem=problem,
        ),
    )


def _fold_further(
    connection: sqlite3.Connection, run: str, directory: Path, state: FoldState
) -> FoldState | None:
    """Fold what follows `state`; None if that cannot be done: it has to be folded anew."""
    history = _history(connection, run, state)
    try:
        _feed(connection, run, history, read_journal(directory, after=state.after))
    except CrabError:
        return None
    return history.state


def _fold_anew(
    connection: sqlite3.Connection, run: str, directory: Path
) -> tuple[FoldState, Problem | None]:
    """Fold all that can be read; the state then, and what was broken."""
    history = _history(connection, run, FoldState())
    problem: Problem | None = None
    try:
        _feed(connection, run, history, whole_records(directory))
    except NotFound:
        return history.state, None
    except CrabError as error:
        problem = Problem.of(error)
        rows.save_turns(connection, run, history.take_changed())
    return history.state, problem


def _history(connection: sqlite3.Connection, run: str, state: FoldState) -> History:
    return History(state=state, load=lambda turn: rows.load_turn(connection, run, turn))


def _feed(
    connection: sqlite3.Connection, run: str, history: History, records: Iterable[Record]
) -> None:
    """Fold `records` into the turns of `run`, not all of which are held at once."""
    opened = history.run.turn
    for record in records:
        history.feed(record)
        if history.run.turn >= opened + _FLUSH_TURNS:
            opened = history.run.turn
            rows.save_turns(connection, run, history.take_changed())
    rows.save_turns(connection, run, history.take_changed())
