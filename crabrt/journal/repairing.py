"""Giving up what lies behind damage, so that a run can go on.

Nothing is overwritten or deleted: a new segment declares the journal valid up to its last whole
entry, which makes everything behind it void. The damaged bytes stay for whoever wants to look.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from crabrt.core.failpoints import declare
from crabrt.errors import DamagedJournal, NotFound
from crabrt.journal.beginning import create_segment, following, name_of
from crabrt.journal.framing import HEADER_BYTES, Header
from crabrt.journal.layout import DISK, SegmentName, journal_dir, list_segments, unavailable
from crabrt.journal.lease import Lease
from crabrt.journal.reading import Position, Record, SegmentTail, read_segment
from crabrt.journal.segments import Segment, read_header, resolve

_CUT = declare("journal.cut", "the void part is declared void; that is not yet durable")


class Cut(msgspec.Struct, frozen=True):
    """What `cut_journal` kept: everything up to `after` (None: nothing was whole), and why."""

    after: Position | None
    problem: str


def cut_journal(directory: Path, lease: Lease) -> Cut | None:
    """Cut a damaged journal behind its last whole entry; None if it was not damaged.

    `Journal.open` then goes on from there. The new segment holds no entry itself.

    Raises:
        NotFound: there is no such run, or not one whole entry of it.
        FormatTooNew: a newer crabrt wrote it: that is not damage.
        StoreUnavailable: it cannot be read or written.
    """
    after: Position | None = None
    try:
        for record in whole_records(directory):
            after = record.position
    except DamagedJournal as error:
        problem = error
    else:
        return None
    if after is None:
        raise NotFound(f"nothing of the journal is whole: {problem}", where=directory.name)
    header = following(after, epoch=lease.epoch, run=directory.name)
    folder = journal_dir(directory)
    try:
        fd, _ = create_segment(folder, header, headed=_CUT)
        os.close(fd)
        DISK.sync_directory(folder)
    except OSError as error:
        raise unavailable(error, "cut the journal", folder / str(name_of(header))) from error
    return Cut(after, str(problem))


def whole_records(directory: Path) -> Iterator[Record]:
    """The entries up to the first damage, even where the path of segments itself is broken.

    Raises:
        NotFound: there is no such run, or nothing was ever written to it.
        DamagedJournal: behind the last of them: what is wrong there.
        FormatTooNew: a newer crabrt wrote it.
        StoreUnavailable: it cannot be read.
    """
    problem: DamagedJournal | None = None
    try:
        path = resolve(directory)
    except DamagedJournal as error:
        problem = error
        path = _forwards(directory)
    try:
        for segment in path:
            header = segment.header
            start = SegmentTail(HEADER_BYTES, header.first_seq - 1, header.previous_chain)
            yield from read_segment(segment, start)
    except DamagedJournal as error:
        problem = problem or error
    if problem is not None:
        raise problem


def _forwards(directory: Path) -> list[Segment]:
    """The segments from the first one on, as far as each is named by another that can be read."""
    folder = journal_dir(directory)
    found: dict[SegmentName, Header] = {}
    for name in list_segments(directory):
        try:
            header = read_header(folder / str(name))
        except DamagedJournal:
            continue
        if header is not None and (header.segment, header.epoch) == (name.segment, name.epoch):
            found[name] = header
    path: list[Segment] = []
    epoch, number = 0, 1
    while True:
        following = [
            name
            for name, header in found.items()
            if name.segment == number and header.previous_epoch == epoch
        ]
        if not following:
            return path
        name = max(following)
        header = found[name]
        if path:
            path[-1] = msgspec.structs.replace(
                path[-1],
                limit=header.previous_length,
                next_chain=header.previous_chain,
                next_seq=header.first_seq,
            )
        path.append(Segment(folder / str(name), name, header))
        epoch, number = name.epoch, number + 1
