"""The rows of the run index: what is kept of a run and of a turn, and how it is known to be whole.

Each row carries a checksum over its key and bytes; a run's row says how many turns it has, and how
many of them acted outside, or may have. What does not match is `Rotten`: it is never mended from
what is left, since nobody could tell what is missing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import msgspec

from crabrt.errors import CrabError, Damaged, DamagedJournal, FormatTooNew, StoreUnavailable
from crabrt.journal.database import Rotten, checksum
from crabrt.journal.inbox import Marks
from crabrt.journal.turntable import FoldState
from crabrt.journal.views import TurnView
from crabrt.journal.watermarks import Seen, Watermark

_encode = msgspec.msgpack.Encoder().encode
_decode_turn = msgspec.msgpack.Decoder(TurnView).decode


class StoredRun(msgspec.Struct, frozen=True, array_like=True):
    """The row of a run.

    Attributes:
        state: where its fold stands.
        seen: its files when the fold began; None if they could not be looked at.
        folded: what of them is in the fold.
        boot: the boot in which that was so.
        marks: what its inbox comes to.
        turns: how many rows its turns have.
        external: how many of those acted outside, or may have (`TurnView.outside`).
        problem: what is broken, or None.
    """

    state: FoldState
    seen: Seen | None
    folded: tuple[Watermark, ...]
    boot: str
    marks: Marks
    turns: int
    external: int
    problem: Problem | None


class Problem(msgspec.Struct, frozen=True, array_like=True):
    """Why a journal could not be read to its end: an error, in a form that can be kept."""

    kind: str
    message: str
    where: str | None
    hint: str | None

    @classmethod
    def of(cls, error: CrabError) -> Problem:
        """The form of `error`."""
        return cls(error.kind, error.message, error.where, error.hint)

    @property
    def passing(self) -> bool:
        """Whether it may be gone at the next look, with nothing changed that shows outside."""
        return self.kind == StoreUnavailable.kind

    def error(self) -> CrabError:
        """The error again."""
        known: tuple[type[CrabError], ...] = (DamagedJournal, FormatTooNew, StoreUnavailable)
        found = next((one for one in known if one.kind == self.kind), Damaged)
        return found(self.message, where=self.where, hint=self.hint)


_decode_run = msgspec.msgpack.Decoder(StoredRun).decode


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read in here is of one instant, whatever other processes commit."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def load_run(connection: sqlite3.Connection, run: str) -> StoredRun | None:
    """The row of a run, or None.

    Raises:
        Rotten: it is not what was written.
    """
    found = connection.execute("SELECT row, sum FROM runs WHERE run = ?", (run,)).fetchone()
    if found is None:
        return None
    row, total = found
    if not isinstance(row, bytes) or total != checksum(run, -1, row):
        raise Rotten("the row of a run is broken")
    try:
        return _decode_run(row)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rotten(str(error)) from error


def save_run(connection: sqlite3.Connection, run: str, stored: StoredRun) -> None:
    """Write the row of a run."""
    row = _encode(stored)
    connection.execute(
        "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (run, row, checksum(run, -1, row))
    )


def forget_run(connection: sqlite3.Connection, run: str) -> None:
    """Drop the rows of a run and of its turns."""
    connection.execute("DELETE FROM turns WHERE run = ?", (run,))
    connection.execute("DELETE FROM runs WHERE run = ?", (run,))


def load_turn(connection: sqlite3.Connection, run: str, turn: int) -> TurnView | None:
    """The row of a turn, or None.

    Raises:
        Rotten: it is not what was written.
    """
    query = "SELECT turn, row, sum FROM turns WHERE run = ? AND turn = ?"
    found = connection.execute(query, (run, turn)).fetchone()
    return None if found is None else _checked(run, *found)


def load_turns(connection: sqlite3.Connection, run: str, first: int, last: int) -> list[TurnView]:
    """The rows of the turns `first` to `last`, in order; turns that have none are left out.

    Raises:
        Rotten: one is not what was written.
    """
    query = "SELECT turn, row, sum FROM turns WHERE run = ? AND turn BETWEEN ? AND ? ORDER BY turn"
    return [_checked(run, *row) for row in connection.execute(query, (run, first, last))]


def load_packed_turns(connection: sqlite3.Connection, run: str) -> Iterator[bytes]:
    """The rows of all turns of a run, in order, as they are stored: see `unpack_turn`.

    Raises:
        Rotten: one is not what was written.
    """
    query = "SELECT turn, row, sum FROM turns WHERE run = ? ORDER BY turn"
    for row in connection.execute(query, (run,)):
        yield _whole(run, *row)


def unpack_turn(row: bytes) -> TurnView:
    """The turn in a row.

    Raises:
        Rotten: it is none.
    """
    try:
        return _decode_turn(row)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rotten(str(error)) from error


def pack_turn(view: TurnView) -> bytes:
    """A turn as its row has it."""
    return _encode(view)


def load_turns_backwards(connection: sqlite3.Connection, run: str, last: int) -> Iterator[TurnView]:
    """The rows of the turns from `last` down, as they are asked for.

    Raises:
        Rotten: one is not what was written.
    """
    query = "SELECT turn, row, sum FROM turns WHERE run = ? AND turn <= ? ORDER BY turn DESC"
    for row in connection.execute(query, (run, last)):
        yield _checked(run, *row)


def load_external_turns(connection: sqlite3.Connection, run: str, first: int) -> list[TurnView]:
    """The rows of the turns from `first` on that acted outside, or may have, in order.

    Raises:
        Rotten: one is not what was written.
    """
    query = (
        "SELECT turn, row, sum FROM turns"
        " WHERE run = ? AND turn >= ? AND external = 1 ORDER BY turn"
    )
    return [_checked(run, *row) for row in connection.execute(query, (run, first))]


def save_turns(
    connection: sqlite3.Connection, run: str, changed: dict[int, TurnView | None]
) -> None:
    """Write the rows of turns that changed; None: the turn went."""
    gone = [(run, turn) for turn, view in changed.items() if view is None]
    rows = []
    for turn, view in changed.items():
        if view is not None:
            row = pack_turn(view)
            rows.append((run, turn, view.outside, row, checksum(run, turn, row)))
    connection.executemany("DELETE FROM turns WHERE run = ? AND turn = ?", gone)
    connection.executemany("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?, ?)", rows)


def check_turns(connection: sqlite3.Connection, run: str, stored: StoredRun) -> None:
    """Whether all turns of a run have their rows.

    Raises:
        Rotten: there are more or fewer than were written.
    """
    if count_turns(connection, run) != stored.turns:
        raise Rotten("turns are missing")


def check_external(connection: sqlite3.Connection, run: str, stored: StoredRun) -> None:
    """Whether all turns that acted outside are found by that.

    Raises:
        Rotten: there are more or fewer than were written.
    """
    if count_external(connection, run) != stored.external:
        raise Rotten("turns that acted outside are missing")


def count_turns(connection: sqlite3.Connection, run: str) -> int:
    """How many turns of a run have a row."""
    query = "SELECT count(*) FROM turns WHERE run = ?"
    return int(connection.execute(query, (run,)).fetchone()[0])


def count_external(connection: sqlite3.Connection, run: str) -> int:
    """How many turns of a run acted outside, or may have."""
    query = "SELECT count(*) FROM turns WHERE run = ? AND external = 1"
    return int(connection.execute(query, (run,)).fetchone()[0])


def _checked(run: str, turn: int, row: object, total: object) -> TurnView:
    return unpack_turn(_whole(run, turn, row, total))


def _whole(run: str, turn: int, row: object, total: object) -> bytes:
    if not isinstance(row, bytes) or total != checksum(run, turn, row):
        raise Rotten("the row of a turn is broken")
    return row
