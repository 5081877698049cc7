"""All runs of a store and their turns, quick to ask: a projection of the journals, never the truth.

`RunIndex.refresh` folds what was added to each journal since it last looked; unchanged runs cost a
few stats. Every answer comes from checksummed rows: what does not match is thrown away and folded
again, so deleting or damaging ``runs.sqlite`` costs time and changes no answer. A journal that
cannot be read does not keep the others from being listed: its run has the status ``damaged``, and
the turns before the damage.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from crabrt.core.failpoints import declare
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.targets import TurnRef
from crabrt.errors import CrabError, NotFound
from crabrt.journal import lookup
from crabrt.journal.database import Database, Rotten, checksum
from crabrt.journal.history import History
from crabrt.journal.inbox import Marks, inbox_numbers, read_marks
from crabrt.journal.layout import journal_dir, list_segments, unavailable
from crabrt.journal.lease import lease_holder
from crabrt.journal.lookup import CheckpointRow, RunRow, TurnRow
from crabrt.journal.reading import PositionLost, read_journal
from crabrt.journal.turntable import FoldState
from crabrt.journal.views import DAMAGED, FORKED, OPEN, TurnView, live_status

_APPLIED = declare("index.applied", "journal entries are folded, the transaction is not committed")

_FLUSH_TURNS = 512

_encode = msgspec.msgpack.Encoder().encode
_decode_turn = msgspec.msgpack.Decoder(TurnView).decode


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """The row of a run: where its fold stands, and what was seen on disk when it got there."""

    seen: tuple[tuple[int, int, int, int], ...]
    state: FoldState
    marks: Marks
    count: int
    problem: str | None


_decode_stored = msgspec.msgpack.Decoder(_Stored).decode


class RunIndex:
    """See the module. Not thread-safe; any number of processes may have it open.

    `refresh` before asking: answers are as of the last refresh (but for whether a run is alive).
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._database = Database(home / "runs.sqlite")

    @classmethod
    def open(cls, home: Path) -> RunIndex:
        """The index of the store at `home`.

        Raises:
            NotFound: there is no such directory.
        """
        if not home.is_dir():
            raise NotFound("there is no store", where=str(home))
        return cls(home)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- keeping up --------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what was added to the journals and inboxes.

        Raises:
            StoreUnavailable: the runs cannot be listed.
            StoreBusy: another process keeps the index locked.
        """
        self._database.reopen_if_moved()
        self._database.run(self._refresh, lambda: None)

    def rebuild(self) -> None:
        """Throw everything away and fold all journals again.

        Raises:
            StoreUnavailable, StoreBusy: as `refresh`.
        """
        self._database.recreate()
        self.refresh()

    def _refill(self) -> None:
        self._database.run(self._refresh, lambda: None)

    def _refresh(self, connection: sqlite3.Connection) -> None:
        known = {run for (run,) in connection.execute("SELECT run FROM runs")}
        present = set(self._present())
        for run in sorted(known - present):
            _forget(connection, run)
        for run in sorted(present):
            directory = self.home / "runs" / run
            seen = _seen(directory)
            stored = _load(connection, run) if run in known else None
            if stored is None or stored.seen != seen:
                self._update(connection, run, directory)

    def _present(self) -> Iterator[str]:
        try:
            with os.scandir(self.home / "runs") as entries:
                for entry in entries:
                    if journal_dir(Path(entry.path)).is_dir():
                        yield entry.name
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(error, "list the runs", self.home / "runs") from error

    def _update(self, connection: sqlite3.Connection, run: str, directory: Path) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            stored = _load(connection, run)  # again: another process may have been quicker
            if stored is not None:
                _check_count(connection, run, stored)
            seen = _seen(directory)
            state = FoldState() if stored is None else stored.state
            if stored is None or stored.seen != seen:
                marks = Marks() if stored is None else stored.marks
                try:
                    state, problem = _fold(connection, run, directory, state)
                except PositionLost:
                    _forget(connection, run)
                    state, problem = _fold(connection, run, directory, FoldState())
                try:
                    marks = read_marks(directory)
                except CrabError as error:
                    problem = problem or str(error)
                if state.after is None and problem is None:
                    _forget(connection, run)  # nothing was written to it yet
                else:
                    _save(
                        connection,
                        run,
                        _Stored(seen, state, marks, _count(connection, run), problem),
                    )
            _APPLIED()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # -- answers -----------------------------------------------------------------------------

    def runs(self) -> list[RunRow]:
        """All runs, newest first."""
        rows = self._database.run(self._runs, self._refill)
        return sorted(rows, key=lambda row: (-row.started_ns, row.run))

    def find(self, text: str) -> RunRow:
        """The run that `text` means: an id, a name, a unique prefix of an id, or ``last``.

        Raises:
            NotFound: none. Ambiguous: several.
        """
        return lookup.find_run(self.runs(), text)

    def run(self, run: RunId | str) -> RunRow:
        """The run with that id.

        Raises:
            NotFound: there is none.
        """
        return self._database.run(lambda connection: self._run(connection, run), self._refill)

    def turns(
        self, run: RunId | str, first: int | None = None, last: int | None = None
    ) -> list[TurnRow]:
        """The turns of a run from `first` to `last` (both included), in order.

        Raises:
            NotFound: there is no such run.
        """
        return self._database.run(
            lambda connection: self._turns(connection, run, first, last), self._refill
        )

    def turn(self, run: RunId | str, ref: TurnRef) -> TurnRow:
        """The turn that `ref` means, whether it can be restored or not.

        Raises:
            NotFound: no such run, turn or label.
        """
        row = self.run(run)
        number, _ = lookup.resolve_turn(row, ref)
        return lookup.only(row, number, self.turns(run, number, number))

    def checkpoint(self, run: RunId | str, ref: TurnRef) -> CheckpointRow:
        """The state that `ref` means.

        Raises:
            NotFound: no such run, turn, inner point or label; or that turn has no checkpoint (it
                is open, unprotected, or was thinned): the message says which, the hint what there
                is instead.
        """
        row = self.run(run)
        number, inner = lookup.resolve_turn(row, ref)
        turn = lookup.only(row, number, self.turns(run, number, number))
        return lookup.checkpoint_of(row, turn, inner, self._nearest(row, number))

    def last_state(self, workspace_id: str) -> ObjectId | None:
        """The newest state of a workspace that any run's checkpoint, restore or rollback knew."""
        states = [
            row
            for row in self.runs()
            if row.view.workspace_id == workspace_id and row.view.root is not None
        ]
        newest = max(states, key=lambda row: (row.view.root_ns, row.run), default=None)
        if newest is None or newest.marks.thinned_at(newest.view.root_turn) is not None:
            return None
        return newest.view.root

    def _nearest(self, row: RunRow, number: int) -> int | None:
        """The latest turn before `number` that can be restored; turn 0 always could be."""
        for earlier in range(number - 1, max(number - _FLUSH_TURNS, -1), -1):
            found = self.turns(row.run, earlier, earlier)
            if found and found[0].restorable:
                return earlier
        return None

    def _runs(self, connection: sqlite3.Connection) -> list[RunRow]:
        names = [run for (run,) in connection.execute("SELECT run FROM runs")]
        return [self._row(run, stored) for run in names if (stored := _load(connection, run))]

    def _run(self, connection: sqlite3.Connection, run: str) -> RunRow:
        stored = _load(connection, run)
        if stored is None:
            raise NotFound("there is no such run", where=run, hint="`crab runs` lists them")
        return self._row(run, stored)

    def _row(self, run: str, stored: _Stored) -> RunRow:
        view = stored.state.run
        status = view.status
        problem = stored.problem
        if problem is not None:
            status = DAMAGED
        elif status in (OPEN, FORKED):
            try:
                holder = lease_holder(self.home / "runs" / run)
                status = live_status(status, held=holder is not None)
            except CrabError as error:
                status, problem = DAMAGED, str(error)
        return RunRow(
            run=run,
            name=view.name or run,
            workspace=view.workspace_path,
            workspace_id=view.workspace_id,
            status=status,
            turns=view.turn,
            started_ns=view.started_ns,
            updated_ns=view.updated_ns,
            parent=view.lineage.parent,
            family=view.lineage.family or run,
            problem=problem,
            labels=stored.marks.merged_labels(view.labels),
            view=view,
            marks=stored.marks,
        )

    def _turns(
        self, connection: sqlite3.Connection, run: str, first: int | None, last: int | None
    ) -> list[TurnRow]:
        stored = _load(connection, run)
        if stored is None:
            raise NotFound("there is no such run", where=run, hint="`crab runs` lists them")
        top = stored.state.run.turn
        low = 0 if first is None else max(first, 0)
        high = top if last is None else min(last, top)
        rows = connection.execute(
            "SELECT turn, row, sum FROM turns WHERE run = ? AND turn BETWEEN ? AND ? ORDER BY turn",
            (run, low, high),
        ).fetchall()
        views = [_checked_turn(run, *row) for row in rows]
        if len(views) != high - low + 1 and _count(connection, run) != stored.count:
            raise Rotten("turns are missing")
        return lookup.with_marks(views, stored.state.run, stored.marks)


def _fold(
    connection: sqlite3.Connection, run: str, directory: Path, state: FoldState
) -> tuple[FoldState, str | None]:
    """Fold what follows `state` into the turns of `run`; the state then, and what was broken."""

    def load(turn: int) -> TurnView | None:
        found = connection.execute(
            "SELECT row, sum FROM turns WHERE run = ? AND turn = ?", (run, turn)
        ).fetchone()
        return None if found is None else _checked_turn(run, turn, *found)

    history = History(state=state, load=load)
    opened = state.run.turn
    problem: str | None = None
    try:
        for record in read_journal(directory, after=state.after):
            history.feed(record)
            if history.run.turn >= opened + _FLUSH_TURNS:
                opened = history.run.turn
                _flush(connection, run, history)
    except PositionLost:
        raise
    except NotFound:
        return history.state, None
    except CrabError as error:
        problem = str(error)
    _flush(connection, run, history)
    return history.state, problem


def _flush(connection: sqlite3.Connection, run: str, history: History) -> None:
    changed = history.take_changed()
    gone = [(run, turn) for turn, view in changed.items() if view is None]
    rows = []
    for turn, view in changed.items():
        if view is not None:
            row = _encode(view)
            rows.append((run, turn, row, checksum(run, turn, row)))
    connection.executemany("DELETE FROM turns WHERE run = ? AND turn = ?", gone)
    connection.executemany("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?)", rows)


def _save(connection: sqlite3.Connection, run: str, stored: _Stored) -> None:
    row = _encode(stored)
    connection.execute(
        "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (run, row, checksum(run, -1, row))
    )


def _load(connection: sqlite3.Connection, run: str) -> _Stored | None:
    found = connection.execute("SELECT row, sum FROM runs WHERE run = ?", (run,)).fetchone()
    if found is None:
        return None
    row, total = found
    if not isinstance(row, bytes) or total != checksum(run, -1, row):
        raise Rotten("the row of a run is broken")
    try:
        return _decode_stored(row)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rotten(str(error)) from error


def _checked_turn(run: str, turn: int, row: object, total: object) -> TurnView:
    if not isinstance(row, bytes) or total != checksum(run, turn, row):
        raise Rotten("the row of a turn is broken")
    try:
        return _decode_turn(row)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rotten(str(error)) from error


def _check_count(connection: sqlite3.Connection, run: str, stored: _Stored) -> None:
    """Rows that went missing are not made right by counting what is left.

    Raises:
        Rotten: turns are missing.
    """
    if _count(connection, run) != stored.count:
        raise Rotten("turns are missing")


def _count(connection: sqlite3.Connection, run: str) -> int:
    query = "SELECT count(*) FROM turns WHERE run = ?"
    return int(connection.execute(query, (run,)).fetchone()[0])


def _forget(connection: sqlite3.Connection, run: str) -> None:
    connection.execute("DELETE FROM turns WHERE run = ?", (run,))
    connection.execute("DELETE FROM runs WHERE run = ?", (run,))


def _seen(directory: Path) -> tuple[tuple[int, int, int, int], ...]:
    """What a run's files look like from outside; nothing was added while it stays the same."""
    try:
        names = list_segments(directory)
        seen = [(0, 0, 0, len(names))]
        for name in sorted(names)[-2:]:
            status = os.stat(journal_dir(directory) / str(name))
            seen.append((name.segment, name.epoch, status.st_size, status.st_mtime_ns))
        numbers = inbox_numbers(directory)
        seen.append((1, len(numbers), max(numbers, default=0), os.stat(directory).st_ino))
        return tuple(seen)
    except (CrabError, OSError):
        return ()
