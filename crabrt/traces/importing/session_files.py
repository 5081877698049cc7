"""A session's file as one JSON document, or as numbered lines of JSON; too large is refused.

A document is held in memory whole, and so is each line: both have a limit. A file of many lines is
read line by line.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crabrt.errors import NotFound, UsageError
from crabrt.traces.errors import DamagedTrace, NotATrace

FILE_MAX_BYTES = 1 << 30
VALUE_MAX_BYTES = 64 << 20
"""Of one document, or of one line: many times what an agent writes."""

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as a shell of Windows redirects output


class Session(NamedTuple):
    """What a file holds: a document, or lines with their numbers; a single line is both."""

    document: dict[str, Any] | None
    numbered: list[tuple[int, dict[str, Any]]] | None


def read_session(path: Path) -> Session:
    """The JSON in a file. A byte order mark at its start does not matter.

    Raises:
        NotFound: there is no such file.
        UsageError: it cannot be read, or it, a document, or a line is too large.
        NotATrace: it is no JSON object, nor lines of them.
        DamagedTrace: lines were JSON up to one that is not, or one document is cut off.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(VALUE_MAX_BYTES + 1)
            if len(start) <= VALUE_MAX_BYTES:
                return _small(path, start)
            del start
            return _large(path, file)
    except FileNotFoundError as error:
        raise NotFound("there is no such file", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def no_session(path: Path, why: str) -> NotATrace:
    """The error for a file that is something else."""
    hint = "sessions of swe-agent, mini-swe-agent, claude-code are read; --format names one"
    return NotATrace(why, where=str(path), hint=hint)


def _small(path: Path, data: bytes) -> Session:
    """What may be one document."""
    data = _without_mark(path, data)
    document, why = _json(data)
    if document is not None and not isinstance(document, dict):
        raise no_session(path, "the file is JSON, but no object")
    if isinstance(document, dict):
        return Session(document, None if b"\n" in data.strip() else [(1, document)])
    return Session(None, _numbered(path, data.split(b"\n"), why))


def _large(path: Path, file: BinaryIO) -> Session:
    """What is lines, or too large."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        limit = _mib(VALUE_MAX_BYTES)
        raise UsageError(
            f"it is over {limit}, and no regular file", where=str(path), hint="save it in a file"
        )
    if status.st_size > FILE_MAX_BYTES:
        raise UsageError(
            f"it is over {_mib(FILE_MAX_BYTES)}, no session of an agent", where=str(path)
        )
    file.seek(0)
    return Session(None, _numbered(path, _limited_lines(path, file), None))


def _limited_lines(path: Path, file: BinaryIO) -> Iterable[bytes]:
    number = 0
    while line := file.readline(VALUE_MAX_BYTES + 1):
        number += 1
        if len(line) > VALUE_MAX_BYTES:
            raise UsageError(
                f"the line is over {_mib(VALUE_MAX_BYTES)}, more than any agent writes in one",
                where=f"{path}, line {number}",
                hint="is it the right file?",
            )
        yield line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _numbered(
    path: Path, lines: Iterable[bytes], why: str | None
) -> list[tuple[int, dict[str, Any]]]:
    """The lines that hold something, decoded.

    Args:
        path: for errors.
        lines: of the file.
        why: it is no whole document; None: it is too large to be one.
    """
    numbered: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        value, problem = _json(line)
        if isinstance(value, dict):
            numbered.append((number, value))
        elif numbered:
            raise DamagedTrace(
                f"this line is no JSON object: {problem}",
                where=f"{path}, line {number}",
                hint="copy it again; a session that is still being written ends in half a line",
            )
        elif line.lstrip()[:1] == b"{":
            raise _no_document(path, why)
        else:
            raise no_session(path, f"neither JSON nor lines of it: {problem}")
    if not numbered:
        raise no_session(path, "the file is empty")
    return numbered


def _no_document(path: Path, why: str | None) -> UsageError | DamagedTrace:
    if why is None:
        limit = _mib(VALUE_MAX_BYTES)
        return UsageError(f"one document over {limit}, no session of an agent", where=str(path))
    return DamagedTrace(
        f"the document is cut off or malformed: {why}", where=str(path), hint="copy it again"
    )


def _without_mark(path: Path, data: bytes) -> bytes:
    """`data` in UTF-8, without a byte order mark."""
    if not data.startswith(_WIDE):
        return data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-16").encode()
    except UnicodeError as error:
        raise no_session(path, f"it is marked as UTF-16, and is none: {error}") from error


def _json(data: bytes) -> tuple[Any, str]:
    # The standard decoder: agents write NaN, and lone surrogates as escapes.
    try:
        return json.loads(data), ""
    except (ValueError, RecursionError) as error:
        return None, str(error)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20:,} MiB"
