"""What comes back on the status channel, told from whatever else somebody may write there."""

from __future__ import annotations

from typing import Final, NamedTuple

_FIELDS: Final = {b"init": 1, b"shell": 1, b"ended": 1, b"begun": 1, b"report": 4}
_DIRECTORY: Final = 4  # the only field that may be empty, of a report
_MOST_BYTES: Final = 1 << 16


class Started(NamedTuple):
    """The session's first process is there, or its shell. `pid`: inside its namespace."""

    what: str
    pid: int


class Begun(NamedTuple):
    """The shell has read the file of a command, and evaluates its text now."""

    nonce: str


class Ended(NamedTuple):
    """The shell is no more."""

    status: int


class Report(NamedTuple):
    """A command is done.

    Attributes:
        nonce: which.
        status: ``$?``.
        flags: ``$-``.
        directory: where the shell is now.
    """

    nonce: str
    status: int
    flags: str
    directory: bytes


Record = Started | Begun | Ended | Report


class Reports:
    """Fields that end in NUL, put together to records. What makes no sense is skipped.

    Each begins with two NULs as well, which end whatever was written by others.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: list[bytes] = []

    def feed(self, data: bytes) -> list[Record]:
        """The records that `data` completes."""
        *fields, rest = (self._rest + data).split(b"\0")
        self._rest = rest[-_MOST_BYTES:]
        found = []
        for field in fields:
            if not field and len(self._fields) < _DIRECTORY:
                self._fields = []  # a record begins
            elif self._fields or field in _FIELDS:
                self._fields.append(field)
            if self._fields and len(self._fields) > _FIELDS[self._fields[0]]:
                record = _record(self._fields)
                self._fields = []
                if record is not None:
                    found.append(record)
        return found


def _record(fields: list[bytes]) -> Record | None:
    kind, *values = fields
    if kind == b"report":
        nonce, status, flags, directory = values
        if not status.isdigit():
            return None
        text = nonce.decode("ascii", "replace"), int(status), flags.decode("ascii", "replace")
        return Report(*text, directory.removesuffix(b"\n"))
    if kind == b"begun":
        return Begun(values[0].decode("ascii", "replace"))
    if not values[0].isdigit():
        return None
    number = int(values[0])
    return Ended(number) if kind == b"ended" else Started(kind.decode(), number)
