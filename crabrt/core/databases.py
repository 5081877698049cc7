"""SQLite, used so that no fork comes in the middle of a statement (see ``forks``)."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from crabrt.core.forks import unforked

_AT_ONCE = 32
"""Rows read ahead of who goes through them."""


class Cursor(sqlite3.Cursor):
    """See the module.

    Going through it reads some rows ahead: who stops in the middle goes on from no other method.
    """

    execute = unforked.gated(sqlite3.Cursor.execute)
    executemany = unforked.gated(sqlite3.Cursor.executemany)
    executescript = unforked.gated(sqlite3.Cursor.executescript)
    fetchone = unforked.gated(sqlite3.Cursor.fetchone)
    fetchmany = unforked.gated(sqlite3.Cursor.fetchmany)
    fetchall = unforked.gated(sqlite3.Cursor.fetchall)
    close = unforked.gated(sqlite3.Cursor.close)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        while rows := self.fetchmany(_AT_ONCE):
            yield from rows

    def __del__(self) -> None:
        """One with rows left ends its statement."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # the connection is closed
            self.close()


class Connection(sqlite3.Connection):
    """See the module. Every statement has to go through it or a cursor of its."""

    __init__ = unforked.gated(sqlite3.Connection.__init__)
    commit = unforked.gated(sqlite3.Connection.commit)
    rollback = unforked.gated(sqlite3.Connection.rollback)
    close = unforked.gated(sqlite3.Connection.close)

    def cursor(self, factory: Any = Cursor) -> Any:  # noqa: D102 - as everywhere here: sqlite3's own
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:  # noqa: D102
        return self.cursor().execute(*args)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:  # noqa: D102
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql: str, /) -> Any:  # noqa: D102
        return self.cursor().executescript(sql)


def connect(path: Any, *, timeout_s: float = 5.0) -> Connection:
    """A connection for several threads under one lock, without transactions of its own accord.

    Args:
        path: of the database, or ``":memory:"``.
        timeout_s: how long to wait for another process.

    Raises:
        sqlite3.DatabaseError: it cannot be opened.
    """
    made: Connection = Connection(
        path, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )
    return made
