"""SQLite, used so that no fork comes in the middle of a statement (see ``forks``)."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Self

from crabrt.core.forks import unforked

_AT_ONCE = 32
"""Rows read ahead of who goes through them."""


class Cursor(sqlite3.Cursor):
    """See the module."""

    def execute(self, *args: Any) -> Self:  # noqa: D102 - as everywhere here: sqlite3's own
        with unforked:
            return super().execute(*args)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Self:  # noqa: D102
        with unforked:
            return super().executemany(sql, parameters)

    def executescript(self, sql: str, /) -> Self:  # noqa: D102
        with unforked:
            super().executescript(sql)
            return self

    def fetchone(self) -> Any:  # noqa: D102
        with unforked:
            return super().fetchone()

    def fetchall(self) -> list[Any]:  # noqa: D102
        with unforked:
            return super().fetchall()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        while rows := self._some():
            yield from rows

    def _some(self) -> list[Any]:
        with unforked:
            return super().fetchmany(_AT_ONCE)

    def __del__(self) -> None:
        """One with rows left ends its statement."""
        with contextlib.suppress(sqlite3.ProgrammingError), unforked:  # the connection is closed
            self.close()


class Connection(sqlite3.Connection):
    """See the module. Every statement has to go through it or a cursor of its."""

    def __init__(self, *args: Any, **options: Any) -> None:
        with unforked:
            super().__init__(*args, **options)

    def cursor(self, factory: Any = Cursor) -> Any:  # noqa: D102
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:  # noqa: D102
        return self.cursor().execute(*args)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:  # noqa: D102
        return self.cursor().executemany(sql, parameters)

    def executescript(self, sql: str, /) -> Any:  # noqa: D102
        return self.cursor().executescript(sql)

    def close(self) -> None:  # noqa: D102
        with unforked:
            super().close()


def connect(path: Any, *, timeout_s: float = 5.0) -> Connection:
    """A connection for several threads under one lock, without transactions of its own accord.

    Args:
        path: of the database, or ``":memory:"``.
        timeout_s: how long to wait for another process.

    Raises:
        sqlite3.DatabaseError: it cannot be opened.
    """
    return Connection(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
