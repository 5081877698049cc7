"""What the index remembers of a run's files, and whether they still hold what was folded.

A look from outside (names, lengths, times, inodes) shows that nothing was touched. Where it shows
a difference, the bytes that were folded are hashed again: an append leaves them as they were, and
whatever else happened does not. After a reboot that is done, in any case, for a last segment that
its writer had not closed: a power cut may have replaced bytes that were never synced by others of
the same length, under the same times. What changes bytes and none of these (a rotting disk) is
``crab check``'s to find, which reads everything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import xxhash

from crabrt.errors import CrabError
from crabrt.journal.layout import (
    SegmentName,
    inbox_dir,
    journal_dir,
    list_segments,
    parse_segment_name,
)
from crabrt.journal.reading import Position, seals
from crabrt.journal.segments import Segment, resolve

_BLOCK_BYTES = 1 << 20


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A run's files from outside.

    Attributes:
        directory: its inode.
        segments: name, length, mtime (ns) and inode of each segment file.
        inbox: how many messages, their length in all, and the latest mtime (ns).
    """

    directory: int
    segments: dict[str, tuple[int, int, int]]
    inbox: tuple[int, int, int]


class Watermark(msgspec.Struct, frozen=True, array_like=True):
    """How much of a segment was folded, and what it was.

    Attributes:
        segment: name of the file.
        length: bytes from its beginning.
        digest: xxh3-128 of them.
        settled: they were durable: another segment follows, or the writer closed this one.
    """

    segment: str
    length: int
    digest: bytes
    settled: bool


def look(directory: Path) -> Seen | None:
    """The files of the run in `directory` as they are now; None if they cannot be looked at."""
    try:
        segments = {}
        for name in list_segments(directory):
            status = os.stat(journal_dir(directory) / str(name))
            segments[str(name)] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return Seen(os.stat(directory).st_ino, segments, _look_into_inbox(directory))
    except (CrabError, OSError):
        return None


def settled(marks: Sequence[Watermark]) -> bool:
    """Whether no power cut can have taken anything of what was folded."""
    return bool(marks) and all(mark.settled for mark in marks)


def still_hold(
    directory: Path,
    marks: Sequence[Watermark],
    before: Seen | None,
    now: Seen | None,
    *,
    rebooted: bool,
) -> bool:
    """Whether all that was folded is still there, as it was.

    Args:
        directory: of the run.
        marks: made when it was folded.
        before: the look from before that fold.
        now: a look from now.
        rebooted: the machine was, since then.
    """
    if before is None or now is None or not marks:
        return False
    for mark in marks:
        file = now.segments.get(mark.segment)
        doubtful = file != before.segments.get(mark.segment) or (rebooted and not mark.settled)
        if doubtful and not _holds(directory, mark):
            return False
    return True


def mark_folded(
    directory: Path, after: Position, known: Sequence[Watermark]
) -> tuple[Watermark, ...]:
    """Watermarks of the journal in `directory` up to `after`; none if it moved on meanwhile.

    Args:
        directory: of the run.
        after: the place behind the last entry folded.
        known: marks that are known to hold: they are not made again.
    """
    try:
        path = resolve(directory)
        marks: list[Watermark] = []
        for segment in path:
            last = segment.name == SegmentName(after.epoch, after.segment)
            length = after.offset if last else segment.limit
            if length is None or (segment.limit is not None and length > segment.limit):
                return ()
            marks.append(_mark(segment, length, known))
            if last:
                return tuple(marks)
    except (CrabError, OSError):
        return ()
    return ()


def _mark(segment: Segment, length: int, known: Sequence[Watermark]) -> Watermark:
    name = str(segment.name)
    for mark in known:
        if (mark.segment, mark.length, mark.settled) == (name, length, True):
            return mark
    closed = segment.limit is not None or seals(segment, length)
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Watermark(name, length, _digest(fd, length), closed)
    finally:
        os.close(fd)


def _holds(directory: Path, mark: Watermark) -> bool:
    name = parse_segment_name(mark.segment)
    if name is None:
        return False
    try:
        fd = os.open(journal_dir(directory) / str(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _digest(fd, mark.length) == mark.digest
        finally:
            os.close(fd)
    except OSError:
        return False


def _digest(fd: int, length: int) -> bytes:
    """xxh3-128 of the first `length` bytes, or of the whole file if it is shorter."""
    hashed, offset = xxhash.xxh3_128(), 0
    while offset < length:
        block = os.pread(fd, min(_BLOCK_BYTES, length - offset), offset)
        if not block:
            break
        hashed.update(block)
        offset += len(block)
    return hashed.digest()


def _look_into_inbox(directory: Path) -> tuple[int, int, int]:
    count = length = newest_ns = 0
    try:
        with os.scandir(inbox_dir(directory)) as entries:
            for entry in entries:
                if entry.name.endswith(".msg"):
                    status = entry.stat(follow_symlinks=False)
                    count += 1
                    length += status.st_size
                    newest_ns = max(newest_ns, status.st_mtime_ns)
    except FileNotFoundError:
        return (0, 0, 0)
    return (count, length, newest_ns)
