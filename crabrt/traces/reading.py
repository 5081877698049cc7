"""Trace files back into memory: this project's schema, and calls as others recorded them.

Nothing in a file is trusted: what does not fit raises, and the error names the line.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from crabrt.errors import FormatTooNew, NotFound, UsageError
from crabrt.traces import call_lines
from crabrt.traces.errors import DamagedTrace, NotATrace
from crabrt.traces.schema import LINE_MAX_BYTES, SCHEMA, VERSION, Header, Trace, Turn

_decode_header = msgspec.json.Decoder(Header).decode
_decode_turn = msgspec.json.Decoder(Turn).decode


def read_trace(path: Path, *, trajectory: str | None = None) -> Trace:
    """The trace in a file.

    Args:
        path: a trace, or recorded calls (see ``call_lines``), which can be of many trajectories.
        trajectory: which of them, by its id; needed only where there are several.

    Raises:
        NotFound: no such file, or no such trajectory in it.
        Ambiguous: it has several, and none was chosen.
        NotATrace: it is something else.
        FormatTooNew: it was written by a newer crabrt.
        DamagedTrace: it is cut off, or a line is not what the schema says.
    """
    numbered = numbered_lines(path)
    first = next(numbered, None)
    if first is None:
        raise NotATrace("the file is empty", where=str(path), hint="`crab export RUN` writes one")
    fields = _object(first[1])
    if call_lines.is_call(fields):
        return call_lines.read_calls(path, (first, *numbered), trajectory)
    if trajectory is not None:
        raise UsageError("it holds one run, not several trajectories", where=str(path))
    header = _header(path, first[1], fields)
    turns = tuple(_turn(path, number, line) for number, line in numbered)
    if len(turns) != header.turns:
        where = f"{path}, line {len(turns) + 1}"
        what = "it ends after" if len(turns) < header.turns else "it goes on to"
        raise DamagedTrace(
            f"{what} {len(turns)} of {header.turns} turns",
            where=where,
            hint="copy or export it again; a trace of fewer turns is not what the run did",
        )
    return Trace(header, turns)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold something, with their numbers from 1.

    Raises:
        NotFound: no such file.
        UsageError: it cannot be read.
        NotATrace: its first line is longer than any line of a trace.
        DamagedTrace: a later one is.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            while line := file.readline(LINE_MAX_BYTES + 1):
                number += 1
                if len(line) > LINE_MAX_BYTES:
                    _too_long(path, number)
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise NotFound("there is no such file", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _too_long(path: Path, number: int) -> None:
    if number == 1:
        raise NotATrace(
            "its first line is longer than any line of a trace",
            where=f"{path}, line 1",
            hint="other agents' sessions become traces with `crab import FILE`",
        )
    raise DamagedTrace(
        f"the line is longer than {LINE_MAX_BYTES:,} bytes", where=f"{path}, line {number}"
    )


def _object(line: bytes) -> dict[str, Any] | None:
    """The fields of a line; None where it is no JSON object."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _header(path: Path, line: bytes, fields: dict[str, Any] | None) -> Header:
    where = f"{path}, line 1"
    if fields is None or fields.get("schema") != SCHEMA:
        why = "is no JSON object" if fields is None else f"does not say schema {SCHEMA!r}"
        raise NotATrace(
            f"not a trace: its first line {why}",
            where=where,
            hint="other agents' sessions become traces with `crab import FILE`",
        )
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FormatTooNew(
            f"the trace is of version {version}, this crabrt reads up to {VERSION}",
            where=where,
            hint="use the crabrt that wrote it, or a newer one",
        )
    try:
        header = _decode_header(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedTrace(f"the header is malformed: {error}", where=where) from error
    if header.version < 1 or header.turns < 0:
        raise DamagedTrace("the header's version or turns make no sense", where=where)
    return header


def _turn(path: Path, number: int, line: bytes) -> Turn:
    try:
        return _decode_turn(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "the file ends in the middle of it" if not line.endswith(b"\n") else str(error)
        raise DamagedTrace(
            f"this line is no turn: {why}",
            where=f"{path}, line {number}",
            hint="copy or export it again",
        ) from error
