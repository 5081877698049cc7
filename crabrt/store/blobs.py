"""Named immutable byte strings (`core.ports.BlobStore`): in a directory, and in memory.

An object store (S3, GCS, Azure) lies behind the same port. Packs that are being appended to do not:
a blob is whole from the moment it has its name.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import stat
import threading
from pathlib import Path

from crabrt.core import failpoints
from crabrt.errors import DamagedObject, NotFound, UsageError
from crabrt.store import layout, packs
from crabrt.store.failures import unavailable

_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_put = failpoints.declare("blob.put", "a blob is durable under its name")


def check_name(name: str) -> None:
    """Refuse what could lead elsewhere, or is a temporary name.

    Raises:
        UsageError: it is not a relative name of ``[A-Za-z0-9._/-]+``, or a part of it begins
            with a dot.
    """
    if not _NAME.fullmatch(name) or any(part.startswith(".") for part in name.split("/")):
        raise UsageError(f"{name!r} is not the name of a blob")


def _check_range(offset: int, length: int | None) -> None:
    if offset < 0 or (length is not None and length < 0):
        raise UsageError("a range begins at 0 or later and is not negative")


def _checked(data: bytes, size: int, name: str, offset: int, length: int | None) -> bytes:
    if offset > size or (length is not None and len(data) < length):
        raise DamagedObject(f"it has only {size} bytes", where=name)
    return data


class LocalBlobStore:
    """Blobs as files of one directory, 0700 and 0600. Safe beside other processes that use it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, data: bytes) -> bool:
        """As `BlobStore.put`; durable when it returns."""
        check_name(name)
        path = self.root / name
        try:
            self._make_parents(name)
            won = layout.write_durably(path, data, replace=False)
        except OSError as error:
            raise unavailable(error, path, "storing a blob") from error
        _put()
        return won

    def _make_parents(self, name: str) -> None:
        os.makedirs(self.root.parent, exist_ok=True)
        place = self.root
        for part in ("", *name.split("/")[:-1]):
            place = place / part
            if layout.make_directory(place):
                layout.sync_directory(place.parent)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As `BlobStore.get`."""
        check_name(name)
        _check_range(offset, length)
        try:
            file = packs.Descriptor(self.root / name)
            size = os.fstat(file.fd).st_size
            wanted = max(0, size - offset) if length is None else length
            data = packs.read_exactly(file.fd, min(wanted, max(0, size - offset)), offset)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("there is no such blob", where=name) from error
        except OSError as error:
            raise unavailable(error, self.root / name, "reading a blob") from error
        return _checked(data, size, name, offset, length)

    def size(self, name: str) -> int:
        """As `BlobStore.size`."""
        check_name(name)
        try:
            status = os.stat(self.root / name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("there is no such blob", where=name) from error
        except OSError as error:
            raise unavailable(error, self.root / name, "reading a blob") from error
        if not stat.S_ISREG(status.st_mode):
            raise NotFound("there is no such blob", where=name)
        return status.st_size

    def list(self, prefix: str = "") -> list[str]:
        """As `BlobStore.list`; complete at once."""
        found: list[str] = []
        waiting = [""]
        while waiting:
            place = waiting.pop()
            try:
                entries = list(os.scandir(self.root / place))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unavailable(error, self.root / place, "listing blobs") from error
            for entry in entries:
                name = f"{place}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if name.startswith(prefix) or prefix.startswith(f"{name}/"):
                        waiting.append(f"{name}/")
                elif name.startswith(prefix):
                    found.append(name)
        return sorted(found)

    def delete(self, name: str) -> None:
        """As `BlobStore.delete`."""
        check_name(name)
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self.root / name)
        except OSError as error:
            raise unavailable(error, self.root / name, "removing a blob") from error


class MemoryBlobStore:
    """Blobs in a dict. Thread-safe."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes) -> bool:
        """As `BlobStore.put`."""
        check_name(name)
        with self._lock:
            absent = name not in self._blobs
            if absent:
                self._blobs[name] = bytes(data)
        return absent

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As `BlobStore.get`."""
        _check_range(offset, length)
        blob = self._find(name)
        data = blob[offset:] if length is None else blob[offset : offset + length]
        return _checked(data, len(blob), name, offset, length)

    def size(self, name: str) -> int:
        """As `BlobStore.size`."""
        return len(self._find(name))

    def _find(self, name: str) -> bytes:
        check_name(name)
        with self._lock:
            blob = self._blobs.get(name)
        if blob is None:
            raise NotFound("there is no such blob", where=name)
        return blob

    def list(self, prefix: str = "") -> list[str]:
        """As `BlobStore.list`; complete at once."""
        with self._lock:
            names = sorted(self._blobs)
        first = bisect.bisect_left(names, prefix)
        return [name for name in names[first:] if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        """As `BlobStore.delete`."""
        check_name(name)
        with self._lock:
            self._blobs.pop(name, None)
