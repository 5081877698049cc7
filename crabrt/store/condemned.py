"""What gc is about to remove, and what writers answer: the files in ``gc/``.

::

    gc/<n>.condemned           packs that a mark found dead, durable before anybody acts on it
    gc/<n>.seen-<writer>       that writer knows list n: it refers to none of its packs, but for
                               those it names here, which must stay

Both are JSON, written whole or not at all. A list that cannot be read condemns nothing: gc removes
only what it can read in a list.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import msgspec

from crabrt.store import layout
from crabrt.store.failures import unavailable

_LIST = re.compile(r"(\d{1,20})\.condemned")
_NAMES = msgspec.json.Decoder(tuple[str, ...])


def lists(home: Path) -> list[int]:
    """The numbers of all lists there are, ascending.

    Raises:
        StoreUnavailable: the directory cannot be read.
    """
    try:
        names = os.listdir(home / layout.GC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unavailable(error, home / layout.GC, "reading what gc condemned") from error
    return sorted(int(match[1]) for name in names if (match := _LIST.fullmatch(name)))


def read_list(home: Path, number: int) -> frozenset[str]:
    """The packs on a list; none if it is gone or unreadable."""
    return frozenset(_read(home / layout.GC / f"{number}.condemned") or ())


def write_list(home: Path, number: int, packs: frozenset[str]) -> None:
    """Write a list, durably.

    Raises:
        OSError: it cannot be written.
    """
    data = msgspec.json.encode(sorted(packs))
    layout.write_durably(home / layout.GC / f"{number}.condemned", data, replace=True)


def remove_list(home: Path, number: int) -> None:
    """Remove a list and the answers to it.

    Raises:
        OSError: it cannot be removed.
    """
    directory = home / layout.GC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory / f"{number}.condemned")
    for name in os.listdir(directory):
        if name.startswith(f"{number}.seen-"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / name)
    layout.sync_directory(directory)


def sweep(home: Path, before_s: float) -> None:
    """Remove answers to lists that are gone, and temporary files older than `before_s` (epoch).

    Raises:
        OSError: a directory cannot be read or written.
    """
    there = {str(number) for number in lists(home)}
    for name in os.listdir(home / layout.GC):
        number, found, _ = name.partition(".seen-")
        if found and number.lstrip(".") not in there:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(home / layout.GC / name)
    directories = [home / layout.GC, home / layout.WRITERS, *(home / layout.PACKS).iterdir()]
    for path in (path for directory in directories for path in directory.glob("*.tmp")):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before_s:
                path.unlink()


def answer(home: Path, number: int, writer: str, keep: frozenset[str]) -> None:
    """Say for `writer` that it knows list `number`, and which packs on it must stay.

    Not synced: an answer matters only while its writer lives.

    Raises:
        OSError: it cannot be written.
    """
    path = home / layout.GC / f"{number}.seen-{writer}"
    temporary = path.with_name(f".{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        layout.write_all(fd, msgspec.json.encode(sorted(keep)), 0)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read_answer(home: Path, number: int, writer: str) -> frozenset[str] | None:
    """The packs that `writer` wants kept, or None while it has not answered."""
    names = _read(home / layout.GC / f"{number}.seen-{writer}")
    return None if names is None else frozenset(names)


def _read(path: Path) -> tuple[str, ...] | None:
    try:
        return _NAMES.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
