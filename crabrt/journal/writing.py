"""The one writer of a run's journal.

**The commit point** is the return of `Journal.sync` after a `core.entries.Checkpoint` was appended:
from then on the turn is restorable whatever happens. `Journal.append` alone survives SIGKILL: the
frame is handed to the kernel by one write before it returns.

What a failing disk does to it:

* A failed append is cut off again, so the journal stays well-formed; `StoreUnavailable` is raised
  and the next append may succeed.
* A failed sync says nothing about which of the bytes since the last good one are on the disk, and
  the kernel forgets that they were dirty. Nothing more is written behind them: a new segment
  declares them void and holds the same entries again (same seq, same chain hashes), from memory.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self

from crabrt.core.clock import Clock, SystemClock, boot_id
from crabrt.core.entries import Body
from crabrt.core.envelopes import encode_entry
from crabrt.core.failpoints import declare
from crabrt.errors import RunBusy, StoreUnavailable, UsageError
from crabrt.journal.beginning import create_segment, following, name_of, place_to_begin
from crabrt.journal.framing import (
    ENTRY_MARK,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEAL_MARK,
    chain_after,
    encode_frame,
)
from crabrt.journal.layout import (
    DISK,
    Disk,
    SegmentName,
    journal_dir,
    unavailable,
)
from crabrt.journal.lease import Lease
from crabrt.journal.reading import Position

SEGMENT_BYTES = 8 << 20
"""A segment that reached this length is followed by another at the next sync."""

_CREATED = declare("journal.segment-created", "an empty segment file exists; readers pass over it")
_HEADED = declare("journal.segment-headed", "the segment has its header, nothing in it is durable")
_APPENDED = declare("journal.appended", "an entry is with the kernel, but not durable")
_SYNCED = declare("journal.synced", "all entries appended are durable")
_SEALED = declare("journal.sealed", "the writer closed its last segment; the lease is still held")


class Journal:
    """The writer. Thread-safe: appends are ordered by a lock; a running `sync` blocks no append.

    What is not yet durable is kept in memory too (at most about two segments: an append beyond that
    syncs first), to be written again if the sync fails.

    Attributes:
        directory: the run's directory.
        seq: number of the last entry.
        chain: the chain hash after it.
    """

    def __init__(
        self, lease: Lease, after: Position, *, disk: Disk, clock: Clock, segment_bytes: int
    ) -> None:
        self.directory = lease.directory
        self.seq = after.seq
        self.chain = after.chain
        self._lease = lease
        self._disk = disk
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._boot = boot_id()
        self._lock = threading.Lock()  # guards everything below; taken inside _sync_lock
        self._sync_lock = threading.Lock()  # one sync at a time; segments change under both
        self._name = SegmentName(after.epoch, after.segment)
        self._fd = -1
        self._seed = 0
        self._end = after.offset
        self._durable = after  # up to where all is durable; the entries behind are in _pending
        self._pending: list[bytes] = []
        self._torn = False  # bytes of a failed append may lie behind _end
        self._suspect = False  # a sync failed: the segment may not be written behind any more
        self._unsynced_names: list[Path] = []  # directories with names that are not durable

    @classmethod
    def open(
        cls,
        directory: Path,
        lease: Lease,
        *,
        create: bool = False,
        disk: Disk = DISK,
        clock: Clock | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Journal:
        """Take up the journal of the run in `directory`, behind its last whole entry.

        A new segment begins, whose header states how much of the one before it is valid. That much
        is made durable first; a torn tail, and whatever a writer that lost its lease may still
        write, is void from then on.

        Args:
            directory: the run's directory.
            lease: of the same directory.
            create: begin an empty journal if there is none.
            disk: the system calls (tests bring failing ones).
            clock: where the entries' times come from.
            segment_bytes: length at which segments are followed by another.

        Raises:
            NotFound: there is no journal and `create` is false.
            DamagedJournal: it is broken in the middle (`cut` in `repairing` gives up the rest).
            FormatTooNew: its last segment needs a newer crabrt.
            StoreUnavailable: it cannot be read or written.
            RunBusy: the lease is not ours (any more).
        """
        if lease.inert or lease.directory != directory:
            raise _not_ours(directory)
        after, made = place_to_begin(directory, create=create, disk=disk)
        journal = cls(
            lease, after, disk=disk, clock=clock or SystemClock(), segment_bytes=segment_bytes
        )
        journal._unsynced_names = made
        try:
            journal._begin_segment()
        except OSError as error:
            raise unavailable(error, "begin a journal segment", journal.path) from error
        return journal

    @property
    def inert(self) -> bool:
        """Nothing may be written: this is a forked child, or the lease was released."""
        return self._lease.inert or self._fd < 0

    @property
    def path(self) -> Path:
        """The segment that is being written."""
        return journal_dir(self.directory) / str(self._name)

    @property
    def position(self) -> Position:
        """The place behind the last entry."""
        with self._lock:
            return self._position()

    def append(self, body: Body, *, turn: int) -> int:
        """Append an entry; its seq. On return it survives SIGKILL, not yet a power cut.

        Args:
            body: what happened.
            turn: the open turn.

        Raises:
            StoreUnavailable: it could not be written; the journal is as before, try again.
            RunBusy: this process does not own the run (it is a forked child, or closed it).
            UsageError: the entry is too long (long values belong in the store).
        """
        if self.inert:  # asked before the lock: in a forked child a dead thread may hold it
            raise _not_ours(self.directory)
        if self._end >= 2 * self._segment_bytes:
            self.sync()
        with self._lock:
            if self.inert:
                raise _not_ours(self.directory)
            now = self._clock.now()
            payload = encode_entry(
                body,
                seq=self.seq + 1,
                turn=turn,
                wall_ns=now.wall_ns,
                mono_ns=now.mono_ns,
                boot=self._boot,
            )
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise UsageError(f"a journal entry of {len(payload)} bytes is too long")
            self._recover()
            chain = chain_after(self.chain, payload)
            self._write(payload, chain)
            self.seq += 1
            self.chain = chain
            self._pending.append(payload)
            _APPENDED()
            return self.seq

    def sync(self) -> None:
        """Make all entries appended so far durable.

        Raises:
            StoreUnavailable: nothing more than before is known to be durable. Later calls may
                succeed, and then everything is.
            RunBusy: this process does not own the run.
        """
        if self.inert:
            raise _not_ours(self.directory)
        with self._sync_lock:
            with self._lock:
                if self.inert:
                    raise _not_ours(self.directory)
                self._recover()
                if not self._pending and not self._unsynced_names:
                    return
                fd, upto, count = self._fd, self._position(), len(self._pending)
            try:
                self._disk.sync(fd)
                self._sync_names()
            except OSError as error:
                with self._lock:
                    self._suspect = True
                raise unavailable(error, "sync the journal", self.path) from error
            with self._lock:
                self._durable = upto
                del self._pending[:count]
                if self._end >= self._segment_bytes:
                    self._rotate()
        _SYNCED()

    def close(self) -> None:
        """Sync, seal the segment and close it. Safe to call twice. The lease stays the caller's.

        The seal vouches for all that is before it, so that later damage is not taken for a torn
        tail.

        Raises:
            StoreUnavailable: the sync failed; it is closed all the same.
        """
        if self._fd < 0:
            return
        if self._lease.inert:
            self._close_file()
            return
        try:
            self.sync()
            self._seal()
            _SEALED()
        finally:
            with self._sync_lock, self._lock:
                self._close_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _position(self) -> Position:
        return Position(self._name.segment, self._name.epoch, self._end, self.seq, self.chain)

    def _write(self, payload: bytes, chain: bytes, mark: bytes = ENTRY_MARK) -> None:
        """Write one frame at the end, or nothing."""
        frame = encode_frame(
            payload,
            chain,
            durable=self._durable.offset,
            seed=self._seed,
            offset=self._end,
            mark=mark,
        )
        try:
            self._disk.write(self._fd, frame, self._end)
        except OSError as error:
            self._torn = True
            self._cut()
            raise unavailable(error, "append to the journal", self.path) from error
        self._end += len(frame)

    def _cut(self) -> None:
        """Cut the half frame of a failed append. If that fails too, the next append tries again."""
        try:
            self._disk.truncate(self._fd, self._end)
        except OSError:
            return
        self._torn = False

    def _recover(self) -> None:
        """Before writing: finish what an earlier failure left."""
        if self._torn:
            self._cut()
        if self._torn:
            text = "a half-written journal entry cannot be cut off"
            raise StoreUnavailable(text, where=str(self.path))
        if self._suspect:
            try:
                self._begin_segment()
            except OSError as error:
                raise unavailable(error, "begin a journal segment", self.path) from error
            self._suspect = False

    def _rotate(self) -> None:
        """Go on in a new segment if that is possible now, else at a later sync. Has both locks."""
        try:
            if self._pending:
                self._disk.sync(self._fd)
                self._durable = self._position()
                self._pending.clear()
        except OSError:
            self._suspect = True  # the caller's own sync succeeded: the next call reports it
            return
        try:
            self._begin_segment()
        except OSError:
            return

    def _begin_segment(self) -> None:
        """Go on in a new segment behind the last durable entry, with what is pending in it."""
        durable = self._durable
        header = following(durable, epoch=self._lease.epoch, run=self.directory.name)
        name, folder = name_of(header), journal_dir(self.directory)
        try:
            fd, end = create_segment(
                folder, header, self._pending, disk=self._disk, created=_CREATED, headed=_HEADED
            )
        except FileExistsError:
            raise RunBusy(
                "another process began the next journal segment", where=str(folder / str(name))
            ) from None
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._name, self._seed, self._end = fd, name, header.seed, end
        self._durable = Position(name.segment, name.epoch, HEADER_BYTES, durable.seq, durable.chain)
        self._unsynced_names.append(folder)

    def _sync_names(self) -> None:
        for directory in tuple(self._unsynced_names):
            self._disk.sync_directory(directory)
            self._unsynced_names.remove(directory)

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _seal(self) -> None:
        with self._lock:
            try:
                self._write(b"", self.chain, SEAL_MARK)
            except StoreUnavailable:
                return  # a missing seal loses nothing but a sharper diagnosis


def _not_ours(directory: Path) -> RunBusy:
    return RunBusy(
        "this process does not own the run: it is a forked child, or let it go",
        where=directory.name,
        hint="only the process that runs the loop writes the journal",
    )
