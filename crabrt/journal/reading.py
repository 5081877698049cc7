"""Reading a journal: streaming, incremental, and without trusting a byte of it.

Three ends are told apart. A journal that ends in a torn frame which nobody vouched for simply ends
there: its writer died, or the power went. Broken bytes that were durable, or that something
follows, are `DamagedJournal`. A position that is no longer part of the journal (the power cut took
what followed it, and the run went on differently) is `PositionLost`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import msgspec

from crabrt.core.entries import Body
from crabrt.core.envelopes import Entry, body_of, decode_entry
from crabrt.errors import DamagedJournal, FormatTooNew, NotFound
from crabrt.journal.frames import Frames
from crabrt.journal.framing import (
    HEADER_BYTES,
    chain_after,
)
from crabrt.journal.layout import SegmentName, unavailable
from crabrt.journal.segments import Segment, damaged, resolve

_MAX_NUMBER = 1 << 62


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A place between two entries, to read on from.

    Attributes:
        segment, epoch: the segment's name.
        offset: behind the last entry read.
        seq, chain: of that entry.
    """

    segment: int
    epoch: int
    offset: int
    seq: int
    chain: bytes


class PositionLost(NotFound):
    """The position is not part of the journal (any more): read it again from the start."""

    kind = "position-lost"


class Record(msgspec.Struct, frozen=True):
    """One entry, as read.

    Attributes:
        entry: the envelope.
        body: the body, or None for an unknown kind that may be skipped.
        chain: the chain hash after it.
        position: the place behind it.
    """

    entry: Entry
    body: Body | None
    chain: bytes
    segment: SegmentName
    offset: int

    @property
    def position(self) -> Position:
        """The place behind this entry."""
        return Position(
            self.segment.segment, self.segment.epoch, self.offset, self.entry.seq, self.chain
        )


class SegmentTail(msgspec.Struct, frozen=True):
    """Where reading a segment ended: offset behind the last entry, its seq and chain hash."""

    offset: int
    seq: int
    chain: bytes


def read_journal(directory: Path, *, after: Position | None = None) -> Iterator[Record]:
    """The entries of the run in `directory`, in order, in bounded memory.

    Safe beside a live writer: it ends at the last whole entry.

    Args:
        directory: the run's directory.
        after: only what follows this place.

    Raises:
        NotFound: no such run, or it has no journal.
        PositionLost: `after` is no part of the journal.
        DamagedJournal: broken in the middle; `where` names segment and offset.
        FormatTooNew: a segment or an entry needs a newer crabrt.
        StoreUnavailable: it cannot be read.
    """
    path = resolve(directory)
    start = SegmentTail(HEADER_BYTES, 0, path[0].header.previous_chain)
    if after is not None:
        path, start = _skip_to(path, after)
    for segment in path:
        start = yield from read_segment(segment, start)
        start = SegmentTail(HEADER_BYTES, start.seq, start.chain)


def follow(
    directory: Path, wait: Callable[[], bool], *, after: Position | None = None
) -> Iterator[Record]:
    """As `read_journal`, but at the end it calls `wait` and looks again while that returns true.

    Args:
        directory: the run's directory.
        wait: sleeps as it sees fit; False ends the reading.
        after: only what follows this place.

    Raises:
        NotFound, PositionLost, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    while True:
        record = None
        for record in read_journal(directory, after=after):
            yield record
        if record is not None:
            after = record.position
        if not wait():
            return


def _skip_to(path: list[Segment], after: Position) -> tuple[list[Segment], SegmentTail]:
    """The part of the path behind `after`, and where to begin in it."""
    for index, segment in enumerate(path):
        if segment.name != SegmentName(after.epoch, after.segment):
            continue
        if segment.limit is not None and after.offset > segment.limit:
            # What was not yet durable may have been written again, the same, to a later segment.
            return _skip_by_seq(path[index + 1 :], after)
        if not reaches(segment, after):
            break
        return path[index:], SegmentTail(after.offset, after.seq, after.chain)
    raise PositionLost(
        f"entry {after.seq} is no longer part of the journal", where=str(path[0].path)
    )


def _skip_by_seq(path: list[Segment], after: Position) -> tuple[list[Segment], SegmentTail]:
    for index, segment in enumerate(path):
        if segment.header.first_seq > after.seq:
            break
        start = SegmentTail(
            HEADER_BYTES, segment.header.first_seq - 1, segment.header.previous_chain
        )
        for record in read_segment(segment, start):
            if record.entry.seq == after.seq and record.chain == after.chain:
                return path[index:], SegmentTail(record.offset, after.seq, after.chain)
    raise PositionLost(f"entry {after.seq} was lost", where=str(path[0].path) if path else None)


def reaches(segment: Segment, after: Position) -> bool:
    """Whether the segment, the position's own, has its entry there, and not another in its place.

    A whole frame with the position's chain hash proves all that was before it.

    Raises:
        StoreUnavailable: the segment cannot be read.
    """
    if after.offset == HEADER_BYTES:
        before = (segment.header.first_seq - 1, segment.header.previous_chain)
        return (after.seq, after.chain) == before
    try:
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(error, "read a journal segment", segment.path) from error
    try:
        frame = Frames(fd, segment, HEADER_BYTES).before(after.offset)
    except OSError as error:
        raise unavailable(error, "read a journal segment", segment.path) from error
    finally:
        os.close(fd)
    return frame is not None and frame.chain == after.chain


def read_segment(segment: Segment, start: SegmentTail) -> Generator[Record, None, SegmentTail]:
    """The entries of one segment behind `start`; returns where they end.

    Raises:
        DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    try:
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise damaged(segment.path, 0, start.seq + 1, "the segment vanished") from error
    except OSError as error:
        raise unavailable(error, "read a journal segment", segment.path) from error
    try:
        seq, chain = start.seq, start.chain
        frames = Frames(fd, segment, start.offset)
        while True:
            frame = frames.next()
            if frame is None:
                break
            seq += 1
            if frame.chain != chain_after(chain, frame.payload):
                raise damaged(segment.path, frames.began, seq, "the hash chain is broken")
            chain = frame.chain
            entry, body = _decode(frame.payload, segment.path, frames.began, seq)
            yield Record(entry, body, chain, segment.name, frame.end)
        _check_end(segment, frames, seq, chain)
        return SegmentTail(frames.offset, seq, chain)
    except OSError as error:
        raise unavailable(error, "read a journal segment", segment.path) from error
    finally:
        os.close(fd)


def _check_end(segment: Segment, frames: Frames, seq: int, chain: bytes) -> None:
    if segment.limit is None:
        vouched = frames.vouched_for()
        if vouched is not None:
            raise damaged(
                segment.path,
                frames.offset,
                seq + 1,
                f"bytes that were durable are broken (the frame at {vouched} vouches for them)",
            )
        return
    if frames.offset != segment.limit:
        raise damaged(segment.path, frames.offset, seq + 1, "an entry is broken and more follow")
    if seq + 1 != segment.next_seq or chain != segment.next_chain:
        raise damaged(
            segment.path, frames.offset, seq, "the next segment follows on something else"
        )


def _decode(payload: bytes, path: Path, offset: int, seq: int) -> tuple[Entry, Body | None]:
    try:
        entry = decode_entry(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise damaged(path, offset, seq, f"not an entry: {error}") from error
    if entry.seq != seq:
        raise damaged(path, offset, seq, f"the entry says it is number {entry.seq}")
    if entry.turn < 0 or max(entry.turn, entry.wall_ns, entry.mono_ns) > _MAX_NUMBER:
        raise damaged(path, offset, seq, "the entry's turn or time makes no sense")
    try:
        return entry, body_of(entry)
    except KeyError as error:
        raise FormatTooNew(
            f"entry {seq} is of the unknown kind {entry.kind!r}",
            where=f"{path}:{offset}",
            hint="upgrade crabrt",
        ) from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise damaged(path, offset, seq, f"not a {entry.kind!r} entry: {error}") from error


def is_sealed(directory: Path, after: Position) -> bool:
    """Whether the writer closed its journal behind the entry at `after`.

    Raises:
        NotFound, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    return any(
        seals(segment, after.offset)
        for segment in resolve(directory)
        if segment.name == SegmentName(after.epoch, after.segment)
    )


def seals(segment: Segment, offset: int) -> bool:
    """Whether a seal is at `offset` of the segment.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            frames = Frames(fd, msgspec.structs.replace(segment, limit=None), offset)
            return frames.next() is None and frames.sealed
        finally:
            os.close(fd)
    except OSError as error:
        raise unavailable(error, "read a journal segment", segment.path) from error


def last_position(directory: Path) -> Position:
    """The place behind the last entry, found by reading the last segment only.

    Raises:
        NotFound, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    return tail_of(resolve(directory)[-1])


def tail_of(segment: Segment) -> Position:
    """The place behind the last entry of a segment.

    Raises:
        DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    header = segment.header
    seq, chain, offset = header.first_seq - 1, header.previous_chain, HEADER_BYTES
    for record in read_segment(segment, SegmentTail(offset, seq, chain)):
        seq, chain, offset = record.entry.seq, record.chain, record.offset
    return Position(segment.name.segment, segment.name.epoch, offset, seq, chain)


__all__ = [
    "DamagedJournal",
    "Position",
    "PositionLost",
    "Record",
    "follow",
    "last_position",
    "read_journal",
    "read_segment",
]
