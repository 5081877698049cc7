"""Reading files while a tool may still be writing others, for the capture that will follow.

What is read is what seems to be finished: a regular file that was told of, has been left alone for
a while, and that nobody has open for writing. All else is left to the capture. Small files first;
one that is changed again and again waits longer each time, and is soon left alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, NamedTuple

from crabrt.core.content import Content
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.errors import StoreUnavailable
from crabrt.store import StoreWriter
from crabrt.workspace import ignore
from crabrt.workspace.changes import join
from crabrt.workspace.dirfd import DIR_FLAGS, names_in, walk_to
from crabrt.workspace.early import EarlyReads, Inode
from crabrt.workspace.files import open_file, read_content
from crabrt.workspace.findings import Suspects
from crabrt.workspace.identity import Workspace
from crabrt.workspace.mapped import first_stores_show, leases_tell, open_for_writing
from crabrt.workspace.stamps import settled, stamp, tick_ns

QUIET_NS: Final = 100_000_000
"""How long a file has to be left alone before it is read; four times longer each time after."""

READS_MOST: Final = 3
"""How often one file is read before a capture."""

NAMES_MOST: Final = 20_000
"""With more names waiting, the time of the capture goes elsewhere than into reading."""

UNSYNCED_BYTES: Final = 96 << 20
"""So much is stored without being durable: more would have the writer wait for the disk."""

SYNC_BYTES: Final = 48 << 20
"""With so much stored, it is time to have it made durable."""

FREE_SHARE: Final = 16
"""Of the free space of the store's file system, one part in so many is taken at most."""

_LOOK_UP_S: Final = 0.005
"""While the disk is waited for: how often it is asked whether somebody needs the thread."""

DEPTH_MOST: Final = 64
"""Directories deeper than this are left to the capture: each is entered from the top."""


Worth = Callable[[int, int], bool]
"""Whether it is worth while to read now, with so many files of so many bytes in all to be read."""


def _always(files: int, size_bytes: int) -> bool:
    del files, size_bytes
    return True


class _BrokenOff(Exception):
    """Somebody needs the thread."""


class _Candidate(NamedTuple):
    """A file that may be read."""

    size_bytes: int
    directory: bytes
    name: bytes


class _Noting:
    """An `ObjectWriter`'s `put` that notes the ids; the rest of it is not needed here."""

    def __init__(self, writer: StoreWriter) -> None:
        self.ids: dict[ObjectId, None] = {}
        self._writer = writer
        self.get, self.contains = writer.get, writer.contains
        self.put_many, self.flush, self.sync = writer.put_many, writer.flush, writer.sync

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """As `ObjectWriter.put`."""
        object_id = self._writer.put(data, kind)
        self.ids[object_id] = None
        return object_id


class EarlyReader:
    """Reads for one workspace. Used by the thread that owns the `Tracker`.

    Args:
        workspace: what is read.
        writer: where contents go.
        sync: has what was put made durable by another thread; gives whether that went well. None:
            nobody does before the next capture.

    Attributes:
        reads: what has been read.
        stored_bytes: how much went into the store since the last capture.
    """

    def __init__(
        self,
        workspace: Workspace,
        writer: StoreWriter,
        sync: Callable[[], Future[bool]] | None = None,
    ) -> None:
        self.reads = EarlyReads(writer)
        self._sync = sync
        self._workspace = workspace
        self._writer = writer
        self._can_tell: bool | None = None
        self.settled()

    def settled(self) -> None:
        """A capture is over: begin anew."""
        self.reads.clear()
        self._waiting: dict[bytes, set[bytes]] = {}
        self._ready: dict[tuple[bytes, bytes], int] = {}
        self._unlisted: list[bytes] = []
        self._names = 0
        self._times: dict[Inode, int] = {}
        self.stored_bytes = 0
        self._synced_bytes = 0
        self._syncing: tuple[int, Future[bool]] | None = None
        self._tired = False

    @property
    def tired(self) -> bool:
        """Nothing more is read before the next capture."""
        return self._tired or self.reads.room_bytes <= 0

    @property
    def waiting(self) -> bool:
        """Whether a next round may find something to read, without being told of more."""
        return bool(self._waiting or self._unlisted or self._ready) and not self.tired

    def tell(self, suspects: Suspects) -> None:
        """Something happened there."""
        if self.tired:
            return
        for path, names in suspects.places.items():
            self._add(path, names)
        self._unlisted.extend(suspects.subtrees)

    def _add(self, directory: bytes, names: frozenset[bytes] | set[bytes]) -> None:
        known = self._waiting.setdefault(directory, set())
        self._names -= len(known)
        known |= names
        known.discard(b"")
        self._names += len(known)
        if not known:
            del self._waiting[directory]
        # Which files are excluded is about to be another matter.
        if ignore.IGNORE_FILE in known or self._names + len(self._ready) > NAMES_MOST:
            self._give_up()

    def _give_up(self) -> None:
        self._tired = True
        self._waiting.clear()
        self._ready.clear()
        self._unlisted.clear()

    def round(self, may_go_on: Callable[[], bool], worth: Worth = _always) -> None:
        """Read what can be read now.

        Args:
            may_go_on: asked before each step that takes more than a moment; may wait itself.
            worth: asked before any file is read, and before each.
        """
        if self.tired:
            return
        try:
            root_fd = os.open(self._workspace.path, DIR_FLAGS)
        except OSError:
            self._give_up()
            return
        try:
            if self._is_ours(root_fd):
                self._round(root_fd, may_go_on, worth)
            else:
                self._give_up()
        except (OSError, StoreUnavailable):  # the capture will meet it, too, and say so
            self._give_up()
        finally:
            os.close(root_fd)

    def _is_ours(self, root_fd: int) -> bool:
        status = os.fstat(root_fd)
        if (status.st_dev, status.st_ino) != (self._workspace.device, self._workspace.inode):
            return False
        if self._can_tell is None:
            self._can_tell = leases_tell(root_fd) and first_stores_show(root_fd)
        return self._can_tell

    def _round(self, root_fd: int, may_go_on: Callable[[], bool], worth: Worth) -> None:
        while self._unlisted:
            if not may_go_on():
                return
            self._list(root_fd, self._unlisted.pop())
        for directory in list(self._waiting):
            if not may_go_on():
                return
            for candidate in self._candidates(root_fd, directory):
                self._ready[candidate.directory, candidate.name] = candidate.size_bytes
                self._drop(candidate.directory, {candidate.name})
        size_bytes = sum(self._ready.values())
        if not worth(len(self._ready), size_bytes):
            return
        in_order = sorted((size, *which) for which, size in self._ready.items())
        for candidate in map(_Candidate._make, in_order):
            if self.tired or not worth(len(self._ready), size_bytes):
                return
            if not (self._may_store(may_go_on) and may_go_on()):
                return
            del self._ready[candidate.directory, candidate.name]
            size_bytes -= candidate.size_bytes
            with contextlib.suppress(OSError):  # gone, replaced or locked: the capture will see
                self._read(root_fd, candidate, may_go_on)

    def _list(self, root_fd: int, directory: bytes) -> None:
        """Have everything in a new directory wait."""
        entered = self._enter(root_fd, directory)
        if entered is None:
            return
        fd, _ = entered
        files: set[bytes] = set()
        try:
            for name in names_in(fd):
                mode = os.lstat(name, dir_fd=fd).st_mode
                if stat.S_ISDIR(mode):
                    self._unlisted.append(join(directory, name))
                elif stat.S_ISREG(mode):
                    files.add(name)
        except OSError:
            pass  # what comes and goes is told of by itself
        finally:
            os.close(fd)
        if files:
            self._add(directory, files)

    def _candidates(self, root_fd: int, directory: bytes) -> list[_Candidate]:
        """Which files in a directory may be read now. What never may be waits no longer."""
        entered = self._enter(root_fd, directory)
        names = self._waiting[directory]
        if entered is None:
            self._drop(directory, set(names))
            return []
        fd, rules = entered
        found: list[_Candidate] = []
        done: set[bytes] = set()
        try:
            for name in names:
                try:
                    status = os.lstat(name, dir_fd=fd)
                except OSError:
                    done.add(name)
                    continue
                if not self._is_wanted(status) or (
                    rules is not None and rules.ignores(join(directory, name), is_dir=False)
                ):
                    done.add(name)
                elif self._is_quiet(status):
                    found.append(_Candidate(status.st_size, directory, name))
        finally:
            os.close(fd)
        self._drop(directory, done)
        return found

    def _is_wanted(self, status: os.stat_result) -> bool:
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_dev == self._workspace.device
            and 0 < status.st_size <= self._room()
            and self._times.get((status.st_dev, status.st_ino), 0) < READS_MOST
            and not self.reads.has(status)
        )

    def _is_quiet(self, status: os.stat_result) -> bool:
        times = self._times.get((status.st_dev, status.st_ino), 0)
        return time.time_ns() - status.st_ctime_ns >= QUIET_NS << 2 * times

    def _room(self) -> int:
        """How many bytes a file may have."""
        free = os.statvfs(self._workspace.state_dir)
        return min(self.reads.room_bytes, free.f_bavail * free.f_frsize // FREE_SHARE)

    def _read(self, root_fd: int, candidate: _Candidate, may_go_on: Callable[[], bool]) -> None:
        """Read one file, unless somebody may write into it, or it is another one by now."""
        directory, name = candidate.directory, candidate.name
        dir_fd = walk_to(root_fd, _parts(directory))
        try:
            fd = open_file(dir_fd, name, os.lstat(name, dir_fd=dir_fd).st_uid)
        finally:
            os.close(dir_fd)
        try:
            tick = tick_ns()
            if open_for_writing(fd) is not False:
                return  # its closing will be told
            status = os.fstat(fd)
            if not (self._is_wanted(status) and settled(status.st_ctime_ns, tick, 0)):
                return
            key = (status.st_dev, status.st_ino)
            self._times[key] = self._times.get(key, 0) + 1
            self.reads.spend(status.st_size)
            noting = _Noting(self._writer)
            content = self._put(fd, status.st_size, noting, may_go_on)
            if content is not None and stamp(os.fstat(fd)) == stamp(status):
                self.reads.keep(status, content, tuple(noting.ids))
        finally:
            os.close(fd)

    def _put(
        self, fd: int, size_bytes: int, noting: _Noting, may_go_on: Callable[[], bool]
    ) -> Content | None:
        """Read and store a file; None if that was broken off."""
        before = self.stored_bytes - self._writer.bytes_stored

        def between() -> None:
            self.stored_bytes = before + self._writer.bytes_stored
            if not (self._may_store(may_go_on) and may_go_on()):
                raise _BrokenOff

        try:
            with self._writer.commit():
                return read_content(fd, size_bytes, noting, between)
        except _BrokenOff:
            return None
        finally:
            self.stored_bytes = before + self._writer.bytes_stored

    def _may_store(self, may_go_on: Callable[[], bool]) -> bool:
        """Whether more may be stored now; waits for the disk where there is too much already."""
        while True:
            if self._syncing is not None and self._syncing[1].done():
                reached, outcome = self._syncing
                self._synced_bytes, self._syncing = reached, None
                if not outcome.result():
                    self._give_up()
            unsynced = self.stored_bytes - self._synced_bytes
            if unsynced > SYNC_BYTES and self._syncing is None and self._sync is not None:
                self._syncing = self.stored_bytes, self._sync()
            if self._tired or unsynced <= UNSYNCED_BYTES:
                return not self._tired
            if self._syncing is None:
                self._give_up()
                return False
            if not may_go_on():
                return False
            wait([self._syncing[1]], _LOOK_UP_S)

    def _drop(self, directory: bytes, names: set[bytes]) -> None:
        """They wait no longer. Nor does a directory of which nothing waits."""
        known = self._waiting.get(directory)
        if known is not None:
            self._names -= len(known)
            known -= names
            self._names += len(known)
            if not known:
                del self._waiting[directory]

    def _enter(self, root_fd: int, directory: bytes) -> tuple[int, ignore.Matcher | None] | None:
        """A directory of the workspace, and what is excluded in it; None where it is itself.

        The ignore files are read as they are now: the index may know older ones.
        """
        parts = _parts(directory)
        if len(parts) > DEPTH_MOST:
            return None
        fd, path = os.dup(root_fd), b""
        try:
            rules = ignore.with_file(ignore.read_file(fd), path, self._workspace.excludes)
            for part in parts:
                path = join(path, part)
                if rules is not None and rules.ignores(path, is_dir=True):
                    os.close(fd)
                    return None
                below = os.open(part, DIR_FLAGS, dir_fd=fd)
                os.close(fd)
                fd = below
                rules = ignore.with_file(ignore.read_file(fd), path, rules)
        except OSError:
            os.close(fd)
            return None
        return fd, rules


def _parts(directory: bytes) -> list[bytes]:
    return directory.split(b"/") if directory else []
