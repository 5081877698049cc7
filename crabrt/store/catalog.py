"""``chunks.sqlite``: where every durable object is. A cache of the packs' own indexes.

It may be deleted, damaged or locked at any time, also while others use it: that costs time and
duplicates, never an answer. So no method raises for trouble with SQLite. A damaged file is replaced
by an empty one, one that cannot be written by one in memory, and the caller refills it.

For every pack the catalog says up to which offset it knows the records (`indexed_to`). Rows are
added only where that has no gap. Rows stand for records that are durable.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from crabrt.core.databases import connect
from crabrt.core.forks import unforked
from crabrt.core.ids import ObjectId
from crabrt.store import frames, layout, locks, packs
from crabrt.store.packs import Item, Location

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    indexed_to INTEGER NOT NULL, sealed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS objects (
    id BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL, stored INTEGER NOT NULL,
    raw INTEGER NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY (id, pack)) WITHOUT ROWID;
"""
_LOCATE = (
    "SELECT o.id, p.name, o.offset, o.stored, o.raw, o.kind FROM objects o"
    " JOIN packs p ON p.number = o.pack WHERE o.id "
)
_ITEMS_OF = (
    "SELECT o.id, p.name, o.offset, o.stored, o.raw, o.kind FROM packs p"
    " JOIN objects o ON o.pack = p.number WHERE p.name = ?"
)
_LOCATE_MAX = 512
_LOCATE_STEP = 16
_BUSY_MS = 5_000
_ATTEMPTS = 10
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_UNWRITABLE = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)

_T = TypeVar("_T")


class _WrongSchema(sqlite3.DatabaseError):
    """The file is a database, but not one of ours, or not as we left it."""


def _check_version(version: int) -> bool:
    if version not in (0, _SCHEMA_VERSION):
        raise _WrongSchema(f"schema {version}")
    return version == _SCHEMA_VERSION


class _Trouble(Enum):
    """What to do about an error of SQLite's: go without, go on in memory, start anew."""

    PASSING = 1
    UNWRITABLE = 2
    DAMAGED = 3


def _trouble(error: sqlite3.DatabaseError) -> _Trouble:
    if isinstance(error, _WrongSchema):
        return _Trouble.DAMAGED
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
    if code in _DAMAGED:
        return _Trouble.DAMAGED
    return _Trouble.UNWRITABLE if code in _UNWRITABLE else _Trouble.PASSING


def _slots(count: int) -> int:
    """For how many ids to ask, if `count` are wanted: of few statements SQLite keeps the plans."""
    if count <= _LOCATE_STEP:
        return 1 << (count - 1).bit_length()
    return -(-count // _LOCATE_STEP) * _LOCATE_STEP


class PackState(msgspec.Struct, frozen=True, gc=False):
    """What the catalog knows of a pack: its records before `indexed_to`; whether that is all."""

    indexed_to: int
    sealed: bool


def _location(pack: object, *numbers: object) -> Location | None:
    """What a row says, or None where that cannot be: SQLite keeps neither checksums nor types."""
    if not isinstance(pack, str) or not layout.is_pack_name(pack):
        return None
    if not all(isinstance(number, int) for number in numbers):
        return None
    at = Location(pack, *cast("tuple[int, int, int, int]", numbers))
    there = packs.HEADER_BYTES <= at.offset <= packs.PACK_MAX
    return at if there and frames.plausible(at.kind, at.raw, at.stored) else None


class Catalog:
    """The catalog of the store at `home`. Thread-safe: one connection under one lock."""

    def __init__(self, home: Path) -> None:
        self.path = home / layout.CATALOG
        self.resets = 0
        self._lock = threading.RLock()
        self._inode: int | None = None
        self._connection = self._connect()

    def locate(self, object_id: ObjectId) -> list[Location]:
        """Every place where the object is known to be; usually one or none."""
        rows = self._rows(f"{_LOCATE} = ?", object_id)
        return [at for row in rows if (at := _location(*row[1:])) is not None]

    def locate_all(self, object_ids: Sequence[ObjectId]) -> dict[ObjectId, list[Location]]:
        """`locate` for many at the price of few: those that are known, with their places."""
        found: dict[ObjectId, list[Location]] = {}
        for start in range(0, len(object_ids), _LOCATE_MAX):
            asked = object_ids[start : start + _LOCATE_MAX]
            slots = _slots(len(asked))
            query = f"{_LOCATE} IN ({','.join('?' * slots)})"
            filler = repeat(asked[0], slots - len(asked))
            for object_id, *place in self._rows(query, *asked, *filler):
                at = _location(*place)
                if at is not None:
                    found.setdefault(ObjectId(object_id), []).append(at)
        return found

    def packs(self) -> dict[str, PackState]:
        """What is known, by pack."""
        rows = self._rows("SELECT name, indexed_to, sealed FROM packs")
        return {
            name: PackState(indexed_to, bool(sealed))
            for name, indexed_to, sealed in rows
            if isinstance(indexed_to, int)
        }

    def add(
        self, pack: str, start: int, end: int, items: Iterable[Item], *, sealed: bool
    ) -> bool | None:
        """Add the records of a pack from `start` to `end`; what is known already is skipped.

        Returns:
            True when they are in; False when records before `start` are unknown, so that the caller
            has to add from further back; None when SQLite could not, which later additions heal.
        """
        with self._lock:
            self._follow()
            return self._guarded(lambda: self._add(pack, start, end, items, sealed=sealed), None)

    @unforked.gated  # SQLite would take a forked child for the one who holds the lock
    def _add(
        self, pack: str, start: int, end: int, items: Iterable[Item], *, sealed: bool
    ) -> bool | None:
        with self._transaction() as db:
            row = db.execute(
                "SELECT number, indexed_to, sealed FROM packs WHERE name = ?", (pack,)
            ).fetchone()
            if row is not None and not isinstance(row[1], int):
                raise _WrongSchema(f"{row[1]!r} is no offset")
            if (row[1] if row else 0) < start:
                return False
            if row is None:
                cursor = db.execute("INSERT INTO packs VALUES (NULL, ?, 0, 0)", (pack,))
                row = (cursor.lastrowid, 0, 0)
            number, known_to, was_sealed = row
            rows = (
                (i.id, number, i.at.offset, i.at.stored, i.at.raw, i.at.kind)
                for i in items
                if i.at.offset >= known_to
            )
            db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.execute(
                "UPDATE packs SET indexed_to = ?, sealed = ? WHERE number = ?",
                (max(known_to, end), int(sealed or was_sealed), number),
            )
        return True

    def forget(self, packs: Iterable[str]) -> None:
        """Drop all rows of packs that are no more."""
        names = [(name,) for name in packs]
        if names:
            with self._lock:
                self._follow()
                self._guarded(lambda: self._forget(names), None)

    @unforked.gated
    def _forget(self, names: list[tuple[str]]) -> None:
        with self._transaction() as db:
            for name in names:
                row = db.execute("SELECT number FROM packs WHERE name = ?", name).fetchone()
                if row is not None:
                    db.execute("DELETE FROM objects WHERE pack = ?", row)
                    db.execute("DELETE FROM packs WHERE number = ?", row)

    def items_of(self, pack: str) -> list[Item]:
        """The records it knows of one pack, in no order."""
        rows = self._rows(_ITEMS_OF, pack)
        return [
            Item(ObjectId(object_id), at)
            for object_id, *place in rows
            if (at := _location(*place)) is not None
        ]

    def _rows(self, query: str, *values: object) -> list[Any]:
        nothing: list[Any] = []
        return self._guarded(lambda: self._connection.execute(query, values).fetchall(), nothing)

    def problem(self) -> str | None:
        """What SQLite finds wrong with the file, or None."""
        with self._lock:
            try:
                rows = self._connection.execute("PRAGMA quick_check(1)").fetchall()
            except sqlite3.DatabaseError as error:
                return str(error)
            return None if rows == [("ok",)] else str(rows[0][0])

    def follow(self) -> None:
        """Open the file anew if it was deleted or replaced since."""
        with self._lock:
            self._follow()

    def reset(self) -> None:
        """Throw everything away and start empty."""
        with self._lock:
            self._replace()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _guarded(self, action: Callable[[], _T], otherwise: _T) -> _T:
        with self._lock:
            try:
                return action()
            except sqlite3.DatabaseError as error:
                trouble = _trouble(error)
                if trouble is _Trouble.UNWRITABLE:
                    self._in_memory()
                elif trouble is _Trouble.DAMAGED:
                    self._replace()
                return otherwise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        """The file's connection; one to memory where there can be none."""
        # Several processes may create, replace or close it at once: jitter parts them.
        patient = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.01, max=0.2),
            retry=retry_if_exception(self._worth_another_try),
            reraise=True,
        )
        try:
            return patient(self._open)
        except (sqlite3.DatabaseError, OSError):
            return self._open_memory()

    def _worth_another_try(self, error: BaseException) -> bool:
        if not isinstance(error, sqlite3.DatabaseError):
            return False
        trouble = _trouble(error)
        if trouble is _Trouble.DAMAGED:
            self._remove_damaged()
        return trouble is not _Trouble.UNWRITABLE

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._remove_log_of_a_deleted_file()
        # Only a file that nobody has open may be opened and closed here: closing it would drop
        # the locks that SQLite holds on it for another connection of this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = connect(self.path, timeout_s=_BUSY_MS / 1000)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -16000")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not _check_version(version):
                db.executescript(_SCHEMA)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            db.execute(f"{_LOCATE} = ?", (b"",)).fetchall()
            self._inode = os.stat(self.path).st_ino
        except BaseException:
            db.close()
            raise
        return db

    def _open_memory(self) -> sqlite3.Connection:
        db = connect(":memory:")
        db.executescript(_SCHEMA)
        self._inode = None
        self.resets += 1
        return db

    def _in_memory(self) -> None:
        self._connection.close()
        self._connection = self._open_memory()

    def _follow(self) -> None:
        if self._inode is None:
            return
        try:
            same = os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            same = False
        except OSError:
            return
        if not same:
            self._connection.close()
            self.resets += 1
            self._connection = self._connect()

    def _replace(self) -> None:
        self._connection.close()
        self._remove_damaged()
        self.resets += 1
        self._connection = self._connect()

    def _remove_damaged(self) -> None:
        """Remove the file, unless another process already did and made a new one."""
        lock = self._maintenance_lock()
        try:
            with contextlib.suppress(OSError):
                if self._inode is None or os.stat(self.path).st_ino == self._inode:
                    os.unlink(self.path)
                    self._unlink_logs()
        finally:
            if lock is not None:
                lock.release(remove=False)

    def _remove_log_of_a_deleted_file(self) -> None:
        """A log that outlives its database would be replayed into the next one."""
        lock = self._maintenance_lock()
        try:
            if not self.path.exists():
                self._unlink_logs()
        finally:
            if lock is not None:
                lock.release(remove=False)

    def _unlink_logs(self) -> None:
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}{suffix}")

    def _maintenance_lock(self) -> locks.HeldLock | None:
        with contextlib.suppress(OSError):
            return locks.try_lock(self.path.with_name(f"{layout.CATALOG}.lock"))
        return None
