"""Where things lie in a run's directory, and the system calls a journal is made of.

::

    runs/<run>/lease            who writes (`lease`)
    runs/<run>/journal/         segments, 00000001-00000001.seg: <segment>-<epoch>
    runs/<run>/inbox/           what others tell the run (`inbox`)

`Disk` is the seam for fault injection: tests wrap it to fail, tear or lose what it writes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from crabrt.core.ids import NAME_PATTERN, RunId
from crabrt.errors import NotFound, StoreUnavailable, UsageError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_SEGMENT = re.compile(r"(\d{8,20})-(\d{8,20})\.seg")


class SegmentName(msgspec.Struct, frozen=True, order=True):
    """A segment's name: the epoch comes first, so the greatest is the newest owner's last one."""

    epoch: int
    segment: int

    def __str__(self) -> str:
        return f"{self.segment:08d}-{self.epoch:08d}.seg"


def parse_segment_name(name: str) -> SegmentName | None:
    """The name of a segment file, or None when it is none."""
    match = _SEGMENT.fullmatch(name)
    if match is None:
        return None
    parsed = SegmentName(int(match[2]), int(match[1]))
    return parsed if str(parsed) == name else None


def run_dir(home: Path, run: RunId) -> Path:
    """The directory of a run in the store at `home`.

    Raises:
        UsageError: `run` could not be a run id (it might lead elsewhere).
    """
    if not NAME_PATTERN.fullmatch(run) or run in (".", ".."):
        raise UsageError(f"{run!r} is not a run id")
    return home / "runs" / run


def journal_dir(directory: Path) -> Path:
    """Where the segments of the run in `directory` lie."""
    return directory / "journal"


def inbox_dir(directory: Path) -> Path:
    """Where others leave word for the run in `directory`."""
    return directory / "inbox"


def list_segments(directory: Path) -> list[SegmentName]:
    """The segments of the run in `directory`, in no order; empty if it has no journal yet.

    Raises:
        NotFound: there is no such run.
        StoreUnavailable: the directory cannot be read.
    """
    try:
        names = os.listdir(journal_dir(directory))
    except FileNotFoundError:
        if not directory.is_dir():
            raise NotFound("there is no such run", where=str(directory)) from None
        return []
    except OSError as error:
        raise unavailable(error, "list the journal", journal_dir(directory)) from error
    parsed = (parse_segment_name(name) for name in names)
    return [name for name in parsed if name is not None]


def unavailable(error: OSError, doing: str, path: Path | str) -> StoreUnavailable:
    """The typed error for a failed system call on the store."""
    return StoreUnavailable(
        f"cannot {doing}: {error.strerror or error}",
        where=str(path),
        hint="check free space and permissions of the store (`crab doctor`)",
    )


class Disk:
    """The writing system calls of a journal, as they are."""

    def create(self, path: Path) -> int:
        """Open a new file for reading and writing; FileExistsError if there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(fd, data, offset)
        while written < len(data):
            written += os.pwrite(fd, data[written:], offset + written)

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, length)

    def sync(self, fd: int) -> None:
        """Make the file's bytes and length durable."""
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


DISK = Disk()
