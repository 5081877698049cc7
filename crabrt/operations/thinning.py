"""Which turns of a run have given up their files: small lists beside the journal, written once.

``runs/<run>/thinned/<turn>-<random>`` is a checksummed list of turns, durable *before* gc may drop
what only they refer to. Journals stay as they were (a run's owner may be writing them), several
processes may thin at once, and a reader takes the union. A thinned turn keeps its conversation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import xxhash

from crabrt.core.failpoints import declare
from crabrt.errors import DamagedJournal, StoreUnavailable

_WRITTEN = declare(
    "thin.written", "the list of thinned turns has a temporary name: it counts nothing"
)
_LISTED = declare("thin.listed", "the turns count as thinned; gc has not run")

_SUM_BYTES = 8
_DIRECTORY = "thinned"


def thinned_turns(run_directory: Path) -> frozenset[int]:
    """The turns of a run whose files were given up.

    Raises:
        DamagedJournal: a list is not what was written: what may be dropped is unknown then.
        StoreUnavailable: it cannot be read.
    """
    directory = run_directory / _DIRECTORY
    turns: set[int] = set()
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise _unavailable("list", directory, error) from error
    for name in names:
        if not name.endswith(".tmp"):
            turns |= _read(directory / name)
    return frozenset(turns)


def thin_turns(run_directory: Path, turns: Iterable[int]) -> None:
    """Declare `turns` thinned, durably.

    Raises:
        StoreUnavailable: that cannot be written.
    """
    listed = sorted(set(turns))
    if not listed:
        return
    directory = run_directory / _DIRECTORY
    data = msgspec.msgpack.encode(listed)
    framed = xxhash.xxh3_64_digest(data) + data
    name = f"{listed[0]}-{os.urandom(8).hex()}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        descriptor = os.open(
            directory / f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(framed)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _WRITTEN()
        os.rename(directory / f"{name}.tmp", directory / name)
        _sync_directory(directory)
        _sync_directory(run_directory)
    except OSError as error:
        raise _unavailable("write", directory, error) from error
    _LISTED()


def _read(path: Path) -> set[int]:
    try:
        framed = path.read_bytes()
    except OSError as error:
        raise _unavailable("read", path, error) from error
    data = framed[_SUM_BYTES:]
    if len(framed) < _SUM_BYTES or xxhash.xxh3_64_digest(data) != framed[:_SUM_BYTES]:
        raise DamagedJournal("a list of thinned turns is damaged", where=str(path))
    try:
        return set(msgspec.msgpack.decode(data, type=list[int]))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DamagedJournal(
            f"a list of thinned turns is damaged: {error}", where=str(path)
        ) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(verb: str, path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot {verb} it: {error.strerror}", where=str(path), hint="see `crab doctor`"
    )
