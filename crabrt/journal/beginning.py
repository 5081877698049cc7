"""Beginning a segment: where, and as a file whose header says how much of what is before is valid.

The header is written last. Without it readers pass over the file, so a crash on the way leaves the
journal as it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crabrt.errors import NotFound
from crabrt.journal.framing import (
    HEADER_BYTES,
    NONCE_BYTES,
    Header,
    chain_after,
    encode_frame,
    encode_header,
    genesis,
)
from crabrt.journal.layout import (
    DIRECTORY_MODE,
    DISK,
    Disk,
    SegmentName,
    journal_dir,
    list_segments,
    unavailable,
)
from crabrt.journal.reading import Position, tail_of
from crabrt.journal.segments import resolve


def place_to_begin(
    directory: Path, *, create: bool, disk: Disk = DISK
) -> tuple[Position, list[Path]]:
    """Where a new owner of the run in `directory` begins: behind its last whole entry.

    That much is durable on return, as it is about to be vouched for. With the place come the
    directories that were made for it, whose names are not durable yet.

    Raises:
        NotFound: there is no journal, and `create` is false.
        DamagedJournal: it is broken in the middle.
        FormatTooNew: its last segment needs a newer crabrt.
        StoreUnavailable: it cannot be read or written.
    """
    names = list_segments(directory)
    try:
        segment = resolve(directory)[-1]
    except NotFound:
        if not create:
            raise
        # Segments without a header are what a power cut left of a first attempt.
        made = _make_directories(directory) if not names else []
        return Position(0, 0, 0, 0, genesis(directory.name)), made
    after = tail_of(segment)
    _sync_file(disk, segment.path)
    return after, []


def following(after: Position, *, epoch: int, run: str) -> Header:
    """The header of a segment that `run`'s owner of `epoch` begins behind the place `after`.

    Everything of the segment before that lies behind `after` is void from then on.
    """
    return Header(
        segment=after.segment + 1,
        epoch=epoch,
        first_seq=after.seq + 1,
        previous_epoch=after.epoch,
        previous_length=after.offset,
        previous_chain=after.chain,
        nonce=os.urandom(NONCE_BYTES),
        run=genesis(run),
        created_ns=time.time_ns(),
    )


def name_of(header: Header) -> SegmentName:
    """The name of the segment with that header."""
    return SegmentName(header.epoch, header.segment)


def create_segment(
    folder: Path,
    header: Header,
    payloads: Sequence[bytes] = (),
    *,
    disk: Disk = DISK,
    created: Callable[[], None] = lambda: None,
    headed: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Create the segment of `header` in `folder`, with the entries `payloads`; its fd and length.

    It is durable on return, but for its name. If that fails, the file is removed again.

    Args:
        folder: the directory of the segments.
        header: from `following`.
        payloads: encoded entries.
        disk: the system calls.
        created: called when the file is there, and empty.
        headed: called when all is written, before it is durable.

    Raises:
        FileExistsError: there is one of that name.
        OSError: it cannot be written.
    """
    path = folder / str(name_of(header))
    fd = disk.create(path)
    try:
        created()
        frames, chain, end = [], header.previous_chain, HEADER_BYTES
        for payload in payloads:
            chain = chain_after(chain, payload)
            frame = encode_frame(payload, chain, durable=HEADER_BYTES, seed=header.seed, offset=end)
            frames.append(frame)
            end += len(frame)
        if frames:
            disk.write(fd, b"".join(frames), HEADER_BYTES)
            disk.sync(fd)
        disk.write(fd, encode_header(header), 0)
        headed()
        # Durable before anything follows it: so a broken header with entries behind is damage,
        # and one with nothing behind is what a power cut left.
        disk.sync(fd)
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd, end


def _make_directories(directory: Path) -> list[Path]:
    """Make the journal's directory; those whose names must be synced for it to be found."""
    folder = journal_dir(directory)
    try:
        os.makedirs(folder, DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        raise unavailable(error, "make the run's directory", folder) from error
    return [directory, directory.parent, directory.parent.parent]


def _sync_file(disk: Disk, path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            disk.sync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise unavailable(error, "sync the journal", path) from error
