"""All runs of a store and their turns, quick to ask: a projection of the journals, never the truth.

`RunIndex.refresh` folds what was added to each journal since it last looked; unchanged runs cost a
few stats. What was folded before is verified whenever the files are not as they were (see
`watermarks`), and folded again if it no longer holds: answers are those of a `RunIndex.rebuild`.
They come from checksummed rows (see `rows`): what does not match is thrown away and folded again,
so deleting or damaging ``runs.sqlite`` costs time and changes no answer. A journal that cannot be
read does not keep the others from being listed: its run has the status ``damaged``, and the turns
before the damage.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from crabrt.core.failpoints import declare
from crabrt.core.forks import unforked
from crabrt.core.ids import RunId
from crabrt.core.targets import TurnRef
from crabrt.errors import CrabError, NotFound
from crabrt.journal import lookup, rows
from crabrt.journal.database import Database
from crabrt.journal.inbox import Marks
from crabrt.journal.layout import journal_dir, run_dir, unavailable
from crabrt.journal.lease import last_words, lease_holder
from crabrt.journal.lookup import CheckpointRow, RunRow, TurnRow
from crabrt.journal.rows import Problem, StoredRun
from crabrt.journal.turntable import FoldState
from crabrt.journal.updating import is_stale, take_in
from crabrt.journal.views import DAMAGED, FORKED, OPEN, live_status

_APPLIED = declare("index.applied", "journal entries are folded, the transaction is not committed")

_FLUSH_TURNS = 512


class Folded(msgspec.Struct, frozen=True):
    """Where the fold of a run stands, for whoever follows the run from there.

    Attributes:
        state: of the fold; the caller's own.
        turns: the turns, without marks from the inbox, packed as `rows.unpack_turn` takes them.
        marks: what the inbox came to.
        problem: what is broken behind the last entry folded, or None.
    """

    state: FoldState
    turns: tuple[bytes, ...]
    marks: Marks
    problem: Problem | None


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

    def refresh(self, only: Collection[str] | None = None) -> None:
        """Take in what was added to the journals and inboxes.

        Args:
            only: of these runs; None: of all.

        Raises:
            StoreUnavailable: the runs cannot be listed.
            StoreBusy: another process keeps the index locked.
            UsageError: one of `only` could not be a run id.
        """
        self._database.reopen_if_moved()
        self._database.run(lambda connection: self._refresh(connection, only), lambda: None)

    def rebuild(self) -> None:
        """Throw everything away and fold all journals again.

        Raises:
            StoreUnavailable, StoreBusy: as `refresh`.
        """
        self._database.recreate()
        self.refresh()

    def _refill(self) -> None:
        self._database.run(self._refresh, lambda: None)

    def _refresh(self, connection: sqlite3.Connection, only: Collection[str] | None = None) -> None:
        if only is None:
            known = {run for (run,) in connection.execute("SELECT run FROM runs")}
            present = set(self._present())
        else:
            known = set(only)
            present = {run for run in only if journal_dir(run_dir(self.home, RunId(run))).is_dir()}
        for run in sorted(known - present):
            rows.forget_run(connection, run)
        for run in sorted(present):
            directory = self.home / "runs" / run
            stored = rows.load_run(connection, run) if run in known else None
            if stored is None or is_stale(stored, directory):
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

    @unforked.gated  # SQLite would take a forked child for the one who holds the lock
    def _update(self, connection: sqlite3.Connection, run: str, directory: Path) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            stored = rows.load_run(connection, run)  # again: another process may have been quicker
            if stored is None or is_stale(stored, directory):
                take_in(connection, run, directory, stored)
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

    def folded(self, run: RunId | str) -> Folded:
        """A run as it was folded, to fold it further: all of one instant.

        Raises:
            NotFound: there is no such run.
        """
        return self._database.run(
            lambda connection: self._folded(connection, run),
            lambda: None,  # who follows a run can as well begin at its beginning
        )

    def external_turns(self, run: RunId | str, first: int = 0) -> list[TurnRow]:
        """The turns of a run from `first` on that acted outside, or may have, in order.

        Raises:
            NotFound: there is no such run.
        """
        return self._database.run(
            lambda connection: self._external_turns(connection, run, first), self._refill
        )

    def turn(self, run: RunId | str, ref: TurnRef) -> TurnRow:
        """The turn that `ref` means, whether it can be restored or not.

        Raises:
            NotFound: no such run, turn or label.
            DamagedJournal: what `ref` means is behind damage, or the damage may hide it.
        """
        row = self.run(run)
        number, _, _ = self._resolve(row, ref)
        return lookup.only(row, number, self.turns(run, number, number))

    def checkpoint(self, run: RunId | str, ref: TurnRef) -> CheckpointRow:
        """The state that `ref` means.

        Raises:
            NotFound: no such run, turn, inner point or label; or that turn has no checkpoint (it
                is open, unprotected, or was thinned): the message says which, the hint what there
                is instead.
            DamagedJournal: what `ref` means is behind damage, or the damage may hide it.
        """
        row = self.run(run)
        number, inner, skipped = self._resolve(row, ref)
        turn = lookup.only(row, number, self.turns(run, number, number))
        nearest = None if turn.restorable else self._nearest(row, number)
        return lookup.checkpoint_of(row, turn, inner, nearest, skipped)

    def _resolve(self, row: RunRow, ref: TurnRef) -> tuple[int, int, tuple[int, ...]]:
        """Turn and inner point that `ref` means, and the turns passed over to get there."""
        if ref.turn is None or ref.turn >= 0:
            return (*lookup.resolve_turn(row, ref), ())
        lookup.refuse_if_damaged(row)
        turns = self._database.run(
            lambda connection: self._backwards(connection, row, -(ref.turn or 0)), self._refill
        )
        return lookup.from_the_end(row, ref, turns)

    def _nearest(self, row: RunRow, number: int) -> int | None:
        """The latest turn before `number` that can be restored; turn 0 always could be."""
        earlier = self.turns(row.run, max(number - _FLUSH_TURNS, 0), number - 1)
        return next((turn.turn for turn in reversed(earlier) if turn.restorable), None)

    def _backwards(
        self, connection: sqlite3.Connection, row: RunRow, wanted: int
    ) -> Sequence[TurnRow]:
        """The turns from the end back to the one that is the `wanted`th that can be restored."""
        with rows.snapshot(connection):
            stored = self._stored(connection, row.run)
            rows.check_turns(connection, row.run, stored)
            found: list[TurnRow] = []
            views = rows.load_turns_backwards(connection, row.run, stored.state.run.turn)
            for [turn] in (
                lookup.with_marks([view], stored.state.run, stored.marks) for view in views
            ):
                found.append(turn)
                wanted -= turn.restorable
                if not wanted:
                    break
            return found

    def _runs(self, connection: sqlite3.Connection) -> list[RunRow]:
        names = [run for (run,) in connection.execute("SELECT run FROM runs")]
        found = ((run, rows.load_run(connection, run)) for run in names)
        return [self._row(run, stored) for run, stored in found if stored is not None]

    def _run(self, connection: sqlite3.Connection, run: str) -> RunRow:
        return self._row(run, self._stored(connection, run))

    def _stored(self, connection: sqlite3.Connection, run: str) -> StoredRun:
        stored = rows.load_run(connection, run)
        if stored is None:
            raise NotFound("there is no such run", where=run, hint="`crab runs` lists them")
        return stored

    def _row(self, run: str, stored: StoredRun) -> RunRow:
        view = stored.state.run
        status = view.status
        problem = stored.problem
        if problem is not None:
            status = DAMAGED
        elif status in (OPEN, FORKED):
            try:
                directory = self.home / "runs" / run
                held = lease_holder(directory) is not None
                words = "" if held else last_words(directory)
                status = live_status(status, held=held, last_words=words)
            except CrabError as error:
                status, problem = DAMAGED, Problem.of(error)
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
            problem=None if problem is None else str(problem.error()),
            damage=problem,
            labels=stored.marks.merged_labels(view.labels),
            view=view,
            marks=stored.marks,
        )

    def _turns(
        self, connection: sqlite3.Connection, run: str, first: int | None, last: int | None
    ) -> list[TurnRow]:
        with rows.snapshot(connection):
            stored = self._stored(connection, run)
            top = stored.state.run.turn
            low = 0 if first is None else max(first, 0)
            high = top if last is None else min(last, top)
            views = rows.load_turns(connection, run, low, high)
            if len(views) != high - low + 1:
                rows.check_turns(connection, run, stored)
            return lookup.with_marks(views, stored.state.run, stored.marks)

    def _folded(self, connection: sqlite3.Connection, run: str) -> Folded:
        with rows.snapshot(connection):
            stored = self._stored(connection, run)
            rows.check_turns(connection, run, stored)
            turns = rows.load_packed_turns(connection, run)
            return Folded(stored.state, tuple(turns), stored.marks, stored.problem)

    def _external_turns(
        self, connection: sqlite3.Connection, run: str, first: int
    ) -> list[TurnRow]:
        with rows.snapshot(connection):
            stored = self._stored(connection, run)
            rows.check_external(connection, run, stored)
            views = rows.load_external_turns(connection, run, first)
            return lookup.with_marks(views, stored.state.run, stored.marks)
