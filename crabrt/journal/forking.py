"""A journal that begins with another's history.

The parent's whole segments are hard links (copies where links cannot be made), the one that holds
the last shared entry is copied and cut behind it, and a last segment says ``forked``. Everything is
built beside and named at once by one rename, so a fork exists whole or not at all; no journal needs
another to be read, and deleting the parent takes nothing from the child.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from crabrt.core.clock import SystemClock, boot_id
from crabrt.core.entries import Forked
from crabrt.core.envelopes import encode_entry
from crabrt.core.failpoints import declare
from crabrt.errors import NotFound, UsageError
from crabrt.journal.beginning import create_segment, following
from crabrt.journal.framing import HEADER_BYTES
from crabrt.journal.inbox import copy_marks
from crabrt.journal.layout import (
    DIRECTORY_MODE,
    DISK,
    SegmentName,
    journal_dir,
    unavailable,
)
from crabrt.journal.reading import Position, SegmentTail, reaches, read_segment
from crabrt.journal.segments import Segment, resolve

_LINKED = declare("fork.linked", "the shared segments lie in a temporary directory: no fork yet")
_NAMED = declare("fork.named", "the fork exists; its name may not survive a power cut")

_COPY_BYTES = 1 << 20


def fork_journal(
    parent: Path, child: Path, *, upto: int, forked: Forked, place: Position | None = None
) -> None:
    """Make the journal of a new run out of the first `upto` entries of another. Durable on return.

    What the parent's inbox says about the shared turns is copied too, but for pins. The parent
    may be live.

    Args:
        parent: the parent's directory.
        child: the new run's directory (made if it is not there).
        upto: seq of the last shared entry.
        forked: the entry that follows it.
        place: behind entry `upto`, if that is known: the segment is not read for it then.

    Raises:
        NotFound: no such parent, or it has no entry `upto`.
        UsageError: `child` already has a journal.
        DamagedJournal, FormatTooNew: the shared part of the parent cannot be read.
        StoreUnavailable: it cannot be read or written.
    """
    path = resolve(parent)
    shared = [segment for segment in path if segment.header.first_seq <= upto]
    if upto < 1 or not shared:
        raise NotFound(f"the journal has no entry {upto}", where=parent.name)
    cut = place if _is_place_of(shared[-1], upto, place) else _place_of(shared[-1], upto)
    if cut is None:
        raise NotFound(f"the journal has no entry {upto}", where=parent.name)
    target = journal_dir(child)
    if target.exists():
        raise UsageError("the new run already has a journal", where=child.name)
    temporary = child / f".journal-{os.urandom(8).hex()}"
    try:
        os.makedirs(temporary, DIRECTORY_MODE)
        try:
            for segment in shared[:-1]:
                _link(segment, temporary)
            _copy(shared[-1].path, temporary / shared[-1].path.name, cut.offset)
            _LINKED()
            _write_forked(temporary, child, cut, path, forked)
            DISK.sync_directory(temporary)
            copy_marks(parent, child, upto=forked.turn)
            os.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _NAMED()
        DISK.sync_directory(child)
        DISK.sync_directory(child.parent)
    except OSError as error:
        raise unavailable(error, "fork the journal", child) from error


def _is_place_of(segment: Segment, seq: int, place: Position | None) -> bool:
    """Whether `place` is behind entry `seq` in `segment` (it may be in one that was given up)."""
    if place is None or place.seq != seq:
        return False
    return segment.name == SegmentName(place.epoch, place.segment) and reaches(segment, place)


def _place_of(segment: Segment, seq: int) -> Position | None:
    """The place behind entry `seq`, which would lie in `segment`; it is verified up to there."""
    header = segment.header
    start = SegmentTail(HEADER_BYTES, header.first_seq - 1, header.previous_chain)
    for record in read_segment(segment, start):
        if record.entry.seq == seq:
            return record.position
    return None


def _link(segment: Segment, folder: Path) -> None:
    """Segments that another one follows never change again (their valid part, at least)."""
    target = folder / segment.path.name
    try:
        os.link(segment.path, target)
    except OSError:
        _copy(segment.path, target, segment.path.stat().st_size)


def _copy(source: Path, target: Path, length: int) -> None:
    with open(source, "rb") as reader:
        fd = DISK.create(target)
        try:
            offset = 0
            while offset < length:
                block = reader.read(min(_COPY_BYTES, length - offset))
                if not block:
                    raise OSError(errno.EIO, "the segment became shorter", str(source))
                DISK.write(fd, block, offset)
                offset += len(block)
            DISK.sync(fd)
        finally:
            os.close(fd)


def _write_forked(
    folder: Path, child: Path, cut: Position, path: list[Segment], forked: Forked
) -> None:
    """The child's own first segment: it states where the shared part ends, and says ``forked``."""
    epoch = max(segment.name.epoch for segment in path) + 1
    header = following(cut, epoch=epoch, run=child.name)
    now = SystemClock().now()
    payload = encode_entry(
        forked,
        seq=cut.seq + 1,
        turn=forked.turn,
        wall_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        boot=boot_id(),
    )
    fd, _ = create_segment(folder, header, [payload])
    os.close(fd)
