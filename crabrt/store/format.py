"""``format.json``: which format a store has, and the settings that were fixed when it was created.

What is cut differently, hashed differently or framed differently would not be found again, so these
settings never change in a store's life.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from crabrt.core import failpoints
from crabrt.errors import Damaged, FormatTooNew, NotFound
from crabrt.store import layout
from crabrt.store.failures import unavailable

VERSION = 1
FEATURES: frozenset[str] = frozenset()
"""Names that may stand in ``requires``. A store that requires another is refused."""

_created = failpoints.declare(
    "format.directories",
    "the store's directories exist, format.json does not: nothing was stored yet",
)


class Chunker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long contents are cut. The sizes are bytes; golden vectors are in ``tests/store``."""

    name: str = "fastcdc-2020"
    min: int = 32 << 10
    avg: int = 128 << 10
    max: int = 512 << 10
    seed: int = 0


class Format(msgspec.Struct, frozen=True):
    """The content of ``format.json``.

    Attributes:
        version: of everything in the store's directory.
        requires: names of features that a reader has to know; unknown ones mean refuse.
        id: the hash that object ids are made with.
        chunker: see `Chunker`.
    """

    version: int = VERSION
    requires: tuple[str, ...] = ()
    id: str = "blake3"
    chunker: Chunker = Chunker()


class _Versioned(msgspec.Struct, frozen=True):
    version: int
    requires: tuple[str, ...] = ()


def read_format(home: Path) -> Format:
    """Read and check the format of the store at `home`.

    Raises:
        NotFound: there is no store.
        FormatTooNew: a newer crabrt wrote it, or it requires something unknown here.
        Damaged: the file is not one that crabrt writes.
        StoreUnavailable: it cannot be read.
    """
    path = home / layout.FORMAT
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        _refuse_headless(home, path)
        raise NotFound(
            "there is no store here", where=str(home), hint="run an agent first, or set CRAB_HOME"
        ) from error
    except OSError as error:
        raise unavailable(error, path, "reading the format") from error
    return parse_format(data, path)


def _refuse_headless(home: Path, path: Path) -> None:
    """Packs without ``format.json`` are a damaged store: not an absent one to be created anew."""
    if any(True for _ in layout.list_packs(home)):
        raise Damaged(
            "format.json is gone, but there are packs", where=str(path), hint="run `crab repair`"
        )


def parse_format(data: bytes, path: Path) -> Format:
    """Check the bytes of ``format.json``; `path` is for the error.

    Raises:
        FormatTooNew, Damaged: as `read_format`.
    """
    try:
        versioned = msgspec.json.decode(data, type=_Versioned)
        if versioned.version > VERSION:
            raise FormatTooNew(
                f"the store has format {versioned.version}, this crabrt knows {VERSION}",
                where=str(path),
                hint="upgrade crabrt (pip install -U crabrt), or set CRAB_HOME to another store",
            )
        unknown = sorted(set(versioned.requires) - FEATURES)
        if unknown:
            raise FormatTooNew(
                f"the store requires {', '.join(unknown)}, which this crabrt does not have",
                where=str(path),
                hint="upgrade crabrt (pip install -U crabrt), or set CRAB_HOME to another store",
            )
        found = msgspec.json.decode(data, type=Format)
    except (
        msgspec.DecodeError,
        msgspec.ValidationError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        raise Damaged(
            f"format.json is not readable: {error}", where=str(path), hint="run `crab repair`"
        ) from error
    if found != Format():
        raise Damaged(
            "format.json has settings that no crabrt writes",
            where=str(path),
            hint="run `crab repair`",
        )
    return found


def create_format(home: Path) -> Format:
    """Create the store's directories and its ``format.json``, unless they are there.

    Safe beside other processes that do the same: the format file appears whole, and the first
    one stays.

    Raises:
        FormatTooNew, Damaged: what is there cannot be used.
        StoreUnavailable: it cannot be created.
    """
    try:
        return read_format(home)
    except NotFound:
        pass
    try:
        os.makedirs(home.parent, exist_ok=True)
        layout.make_directory(home)
        for name in layout.DIRECTORIES:
            layout.make_directory(home / name)
        _created()
        write_format(home, replace=False)
    except OSError as error:
        raise unavailable(error, home, "creating the store") from error
    return read_format(home)


def write_format(home: Path, *, replace: bool) -> None:
    """Write the ``format.json`` of this version, durably."""
    data = msgspec.json.format(msgspec.json.encode(Format()), indent=2) + b"\n"
    layout.write_durably(home / layout.FORMAT, data, replace=replace)
    layout.sync_directory(home.parent)
