"""Where things lie in a store's directory, and how its directories and small files are made.

Everything is private to its owner: 0700 and 0600, whatever the umask.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from crabrt.store.failures import unavailable

PACKS = "packs"
WRITERS = "writers"
GC = "gc"
DAMAGED = "damaged"
DIRECTORIES = (PACKS, WRITERS, GC, "runs", "workspaces")
"""What a store consists of; ``runs`` and ``workspaces`` belong to the floors above."""

CATALOG = "chunks.sqlite"
FORMAT = "format.json"

_PACK_NAME = re.compile(r"[0-9a-f]{32}")
_PACK_FILE = re.compile(r"([0-9a-f]{32})\.pack")
WRITER_CHARS = 24
"""The first characters of a pack's name are its writer's id; the other 8 count its packs."""


def is_pack_name(text: str) -> bool:
    """Whether a pack can have that name."""
    return _PACK_NAME.fullmatch(text) is not None


def pack_path(home: Path, name: str) -> Path:
    """The file of the pack called `name` (32 hex digits)."""
    return home / PACKS / name[:2] / f"{name}.pack"


def list_packs(home: Path) -> Iterator[str]:
    """The names of all packs there are, in no order.

    Raises:
        StoreUnavailable: a directory cannot be read.
    """
    root = home / PACKS
    try:
        with os.scandir(root) as parts:
            names = [part.name for part in parts if len(part.name) == 2]
        for part_name in names:
            with contextlib.suppress(NotADirectoryError), os.scandir(root / part_name) as files:
                for file in files:
                    match = _PACK_FILE.fullmatch(file.name)
                    if match and file.name.startswith(part_name):
                        yield match[1]
    except FileNotFoundError:
        return
    except OSError as error:
        raise unavailable(error, root, "listing the packs") from error


def make_directory(path: Path) -> bool:
    """Create a private directory if it is absent; whether this call did."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """``pwrite`` until everything is written."""
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(fd, view, offset)
            offset += written
            rest = view[written:]
            view.release()
            view = rest
    finally:
        view.release()


def write_durably(path: Path, data: bytes, *, replace: bool) -> bool:
    """Create a small private file with these bytes, whole or not at all, and make it durable.

    Args:
        path: the file.
        data: its bytes.
        replace: overwrite what is there; else the first writer wins.

    Returns:
        Whether `data` is now what is there because of this call.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            os.rename(temporary, path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_directory(path.parent)
    return True
