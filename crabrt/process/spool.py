"""Where images lie until they are in the store: in memory if there is room, else beside the store.

CRIU writes while the processes stand still, so that has to be quick. What lies here survives the
end of the loop, and not of the machine; by then it is in the store, or was never promised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from crabrt.core.ids import object_id
from crabrt.core.processes import ProcessTree
from crabrt.errors import StoreUnavailable
from crabrt.workspace.procfs import read

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  whose it is, is checked
_ROOM_FOR: Final = 2.0
"""How many times the memory of the processes has to be free."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Spool:
    """The images of one run on their way into the store.

    Args:
        home: the store's directory.
        run: the run's id.
    """

    def __init__(self, home: Path, run: str) -> None:
        self._beside, self._in_memory = (base / run for base in _bases(home))
        self._may_use_memory = True

    def make(self, name: str, trees: tuple[ProcessTree, ...], more_bytes: int = 0) -> Path:
        """A new directory for images of `trees`, and `more_bytes` beside them.

        What was left there before is dropped.

        Raises:
            StoreUnavailable: it cannot be made.
        """
        needed = sum(_resident(one.pid) for tree in trees for one in tree.processes) + more_bytes
        self.drop(name)
        if self._may_use_memory and _has_room(needed):
            with contextlib.suppress(OSError):  # full, or somebody else's: then on the disk
                return _made(self._in_memory, name)
        try:
            return _made(self._beside, name)
        except OSError as error:
            raise StoreUnavailable(
                f"there is no place for images: {error.strerror}", where=error.filename
            ) from error

    def leave_memory(self) -> None:
        """There was no room in it for an image, so the next ones go on the disk."""
        self._may_use_memory = False

    def drop(self, name: str) -> None:
        """Drop what `make` made, if it did."""
        for base in (self._beside, self._in_memory):
            if os.path.lexists(base / name):
                drop(base / name)

    def clear(self) -> None:
        """Drop all that lies here."""
        for base in (self._beside, self._in_memory):
            drop(base)

    def directories(self) -> list[Path]:
        """What `make` made, and nobody dropped."""
        found: list[Path] = []
        for base in (self._beside, self._in_memory):
            with contextlib.suppress(OSError):
                found += (base / name for name in os.listdir(base))
        return found


def spooled(home: Path) -> set[str]:
    """Whose images lie in spools of the store `home`: ids, as `Spool` was given them."""
    names: set[str] = set()
    for base in _bases(home):
        with contextlib.suppress(OSError):
            if os.lstat(base).st_uid == os.geteuid():
                names |= set(os.listdir(base))
    return names


def _bases(home: Path) -> tuple[Path, Path]:
    mine = object_id(os.fsencode(home)).hex()[:16]
    return home / "spool", _MEMORY / f"crabrt-{os.geteuid()}" / mine


def _made(base: Path, name: str) -> Path:
    _make_private(base)
    directory = base / name
    directory.mkdir(mode=0o700)
    return directory


def drop(directory: Path) -> None:
    """Drop a directory of images; what cannot be dropped stays until the next attempt."""
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # the last one of the run
        directory.parent.rmdir()


def size_of(directory: Path) -> int:
    """How much lies in a directory of images, in bytes."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # dropped meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _has_room(needed: float) -> bool:
    try:
        there = os.statvfs(_MEMORY)
    except OSError:
        return False
    return os.access(_MEMORY, os.W_OK) and there.f_bavail * there.f_frsize > _ROOM_FOR * needed


def _make_private(directory: Path) -> None:
    """Make `directory` and what is missing above it; nobody else may own any of it.

    Raises:
        OSError: somebody does.
    """
    missing = [directory]
    while not missing[-1].parent.exists() or missing[-1].parent.name.startswith("crabrt-"):
        missing.append(missing[-1].parent)
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700)
        status = os.lstat(one)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to somebody else", str(one))


def _resident(pid: int) -> int:
    """How much memory of a process is there, in bytes; 0 if it has ended."""
    try:
        return int(read(b"/proc/%d/statm" % pid).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
