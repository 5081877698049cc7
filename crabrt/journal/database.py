"""The SQLite file behind the run index: a cache that may vanish or rot at any time.

WAL mode, so that readers never wait; ``synchronous=NORMAL`` keeps it consistent over a power cut
and costs no sync a commit. A file that is damaged, or of another version, is replaced by an empty
one; one that was deleted is noticed by its inode. Where no file can be written the index lives in
memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import xxhash

from crabrt.core.databases import connect
from crabrt.core.forks import unforked
from crabrt.errors import StoreBusy
from crabrt.journal.layout import FILE_MODE

SCHEMA_VERSION = 6

_SCHEMA = """
CREATE TABLE runs (run TEXT PRIMARY KEY, row BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE turns (
    run TEXT NOT NULL, turn INTEGER NOT NULL, external INTEGER NOT NULL, row BLOB NOT NULL,
    sum INTEGER NOT NULL, PRIMARY KEY (run, turn)
) WITHOUT ROWID;
CREATE INDEX external_turns ON turns (run, turn) WHERE external = 1;
"""

_BUSY_S = 60.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NO_FILE = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)

_T = TypeVar("_T")


class Rotten(Exception):
    """A row is not what was written. A signal inside the index, never seen outside."""


def checksum(run: str, turn: int, row: bytes) -> int:
    """What is stored beside a row; `turn` is -1 for the run itself."""
    key = f"{run}\0{turn}\0".encode("utf-8", "surrogateescape")
    return xxhash.xxh3_64_intdigest(key + row) - (1 << 63)


class Database:
    """One connection, replaced when it has to be. Not thread-safe.

    Attributes:
        path: the file; the connection may be to memory instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection, self._inode = self._open(fresh=False)

    def run(self, work: Callable[[sqlite3.Connection], _T], refill: Callable[[], None]) -> _T:
        """What `work` gives; if the file turns out rotten, on a new one that `refill` filled.

        Raises:
            StoreBusy: another process keeps it locked.
        """
        try:
            return work(self._connection)
        except (sqlite3.DatabaseError, Rotten) as error:
            self._replace(error)
        try:
            refill()
            return work(self._connection)
        except (sqlite3.DatabaseError, Rotten) as error:
            self._replace(error, memory=True)
        refill()
        return work(self._connection)

    def reopen_if_moved(self) -> bool:
        """Open the file anew if it was deleted or replaced; whether that was so."""
        if self._inode is None or self._inode == _inode(self.path):
            return False
        self.close()
        self._connection, self._inode = self._open(fresh=False)
        return True

    def recreate(self) -> None:
        """Begin with an empty file."""
        self.close()
        self._connection, self._inode = self._open(fresh=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _replace(self, error: Exception, *, memory: bool = False) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            raise StoreBusy("the index of runs is locked", where=str(self.path)) from error
        self.close()
        if memory or (code in _NO_FILE and self._inode == _inode(self.path)):
            self._connection, self._inode = _in_memory(), None
        else:
            self._connection, self._inode = self._open(fresh=True)

    def _open(self, *, fresh: bool) -> tuple[sqlite3.Connection, int | None]:
        try:
            with _creating(self.path):
                if fresh or _inode(self.path) is None:
                    _remove(self.path)
                with contextlib.suppress(sqlite3.DatabaseError, Rotten):
                    return _connect(self.path), _inode(self.path)
                _remove(self.path)
                return _connect(self.path), _inode(self.path)
        except (OSError, sqlite3.DatabaseError):
            return _in_memory(), None


@contextlib.contextmanager
def _creating(path: Path) -> Iterator[None]:
    """One process at a time opens or replaces the file: no stale log may meet a new one."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    connection = connect(path, timeout_s=_BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _in_memory() -> sqlite3.Connection:
    connection = connect(":memory:")
    _prepare(connection)
    return connection


@unforked.gated
def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version != 0:
        raise Rotten(f"schema version {version}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.strip().split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")
