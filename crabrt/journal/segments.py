"""Which segments make up a journal, and how much of each counts.

Every segment's header names the one before it and says how many bytes of that one are valid. So the
journal is read backwards: from the newest segment of the greatest epoch to the first. What is not
on that path was written by an owner that had lost its lease (a *zombie*) after somebody took over,
and is void, as are bytes beyond the stated length. No lock is needed to be sure of that, and none
to read.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from crabrt.errors import DamagedJournal, FormatTooNew, NotFound
from crabrt.journal.framing import HEADER_BYTES, BadHeader, Header, NewerFormat, decode_header
from crabrt.journal.layout import SegmentName, journal_dir, list_segments, unavailable

REPAIR_HINT = (
    "`crab repair --cut-journals` cuts it after the last whole entry; a fork or an export may have"
    " more"
)


class Segment(msgspec.Struct, frozen=True):
    """One segment on the path.

    Attributes:
        path: the file.
        name: its name.
        header: its header.
        limit: how many of its bytes are valid, as the next segment states it; None for the last.
        next_chain: the chain hash at `limit`, as the next segment states it; None for the last.
        next_seq: the seq that follows, as the next segment states it; None for the last.
    """

    path: Path
    name: SegmentName
    header: Header
    limit: int | None = None
    next_chain: bytes | None = None
    next_seq: int | None = None


def damaged(path: Path, offset: int, seq: int, what: str) -> DamagedJournal:
    """The error for broken bytes in a journal: which segment, where in it, which entry."""
    return DamagedJournal(
        f"{what} (entry {seq})",
        where=f"{path.parent.parent.name}/{path.name}:{offset}",
        hint=REPAIR_HINT,
    )


def read_header(path: Path) -> Header | None:
    """The header of the segment at `path`; None if it was never finished, or the file is gone.

    Raises:
        DamagedJournal: it was finished, and its bytes have changed.
        FormatTooNew: written by a newer crabrt.
        StoreUnavailable: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), HEADER_BYTES + 1, 0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error, "read a journal segment", path) from error
    try:
        return decode_header(data[:HEADER_BYTES])
    except NewerFormat as error:
        raise FormatTooNew(str(error), where=str(path), hint="upgrade crabrt") from error
    except BadHeader as error:
        if error.torn or len(data) <= HEADER_BYTES:  # nothing follows before it is durable
            return None
        raise damaged(path, 0, 0, str(error)) from error


def resolve(directory: Path) -> list[Segment]:
    """The segments of the journal in `directory`, first to last.

    Raises:
        NotFound: there is no such run, or nothing was ever written to it.
        DamagedJournal: a segment is missing, renamed, or out of order.
        FormatTooNew, StoreUnavailable: as `read_header`.
    """
    names = sorted(list_segments(directory), reverse=True)
    folder = journal_dir(directory)
    path: list[Segment] = []
    for name in names:
        header = read_header(folder / str(name))
        if header is not None:
            path = _walk_back(folder, name, header)
            break
    if not path:
        raise NotFound("the run has no journal", where=directory.name)
    _check_void(folder, names, path)
    return path


def _walk_back(folder: Path, name: SegmentName, header: Header) -> list[Segment]:
    path = [_segment(folder, name, header)]
    while header.segment > 1:
        earlier = SegmentName(header.previous_epoch, header.segment - 1)
        before = read_header(folder / str(earlier))
        if before is None:
            raise damaged(
                folder / str(earlier), 0, header.first_seq - 1, "a segment is missing or cut short"
            )
        if before.epoch > header.epoch or before.first_seq > header.first_seq:
            raise damaged(path[-1].path, 0, header.first_seq, "segments are out of order")
        if header.previous_length < HEADER_BYTES:
            raise damaged(
                path[-1].path, 0, header.first_seq, "the segment header contradicts itself"
            )
        segment = _segment(folder, earlier, before)
        path.append(
            msgspec.structs.replace(
                segment,
                limit=header.previous_length,
                next_chain=header.previous_chain,
                next_seq=header.first_seq,
            )
        )
        header = before
    if header.first_seq != 1:
        raise damaged(
            path[-1].path, 0, header.first_seq, "the first segment does not begin at entry 1"
        )
    return path[::-1]


def _segment(folder: Path, name: SegmentName, header: Header) -> Segment:
    if (header.segment, header.epoch) != (name.segment, name.epoch):
        raise damaged(folder / str(name), 0, header.first_seq, "the segment has another one's name")
    return Segment(folder / str(name), name, header)


def _check_void(folder: Path, names: list[SegmentName], path: list[Segment]) -> None:
    """Whether every segment off the path is a zombie's or unfinished; else the path is wrong."""
    on_path = {segment.name for segment in path}
    takeovers: dict[int, int] = {}
    for segment in path:
        takeovers.setdefault(segment.name.epoch, segment.name.segment)
    for name in names:
        if name in on_path:
            continue
        void = any(
            epoch > name.epoch and first <= name.segment for epoch, first in takeovers.items()
        )
        if not void and read_header(folder / str(name)) is not None:
            raise damaged(folder / str(name), 0, 0, "the segment follows on no other")
