"""One name into one entry: the bytes, link target and attributes, read without racing anybody.

A regular file is opened without following a link, and its stamp is taken before and after the read:
if it moved, the file is read again, and after a few rounds declared torn. Reading leaves no mark
where the kernel allows that (``O_NOATIME``). FIFOs are never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from crabrt.core.content import Content
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import Entry, Kind
from crabrt.store.contents import BLOCK_BYTES, WHOLE_MAX, put_bytes, put_stream
from crabrt.workspace.dirfd import GONE_ERRNOS
from crabrt.workspace.early import EarlyReads
from crabrt.workspace.index import LOCKED, Doubt
from crabrt.workspace.mapped import Mappings
from crabrt.workspace.stamps import (
    FOREIGN_MARGIN_NS,
    ctime_ns,
    file_system,
    settled,
    stamp,
    tick_ns,
)

READ_ATTEMPTS = 3
"""How often a file that changes while it is read is read, before it counts as torn."""

SPAN_BLOCKS = 4
"""How many blocks of a long file are read at once."""

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})
SHADOW_XATTRS = frozenset({b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"})
"""XFS shows root its own form of the ACLs beside the portable one."""

_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1


class Reading(NamedTuple):
    """What became of one name.

    Attributes:
        entry: None when there is nothing to capture.
        stamp: that the entry belongs to; empty when the name is gone.
        doubt: why it has to be read again next time, or None.
        reason: why it is not (or not freshly) captured, or None.
        bytes_read: of content.
    """

    entry: Entry | None
    stamp: bytes
    doubt: Doubt | None = None
    reason: str | None = None
    bytes_read: int = 0


VANISHED = Reading(None, b"")


class FileReader:
    """Reads the candidates of one capture.

    Args:
        writer: where content goes.
        root_fd: the workspace.
        early: what was read before.
    """

    def __init__(self, writer: ObjectWriter, root_fd: int, early: EarlyReads | None = None) -> None:
        self._writer = writer
        self._early = early
        self._margin_ns = 0 if file_system(root_fd) is not None else FOREIGN_MARGIN_NS
        self._mappings = Mappings(root_fd)
        self._aliases: dict[bytes, Reading] = {}

    @property
    def unobserved(self) -> tuple[str, ...]:
        """What could not be looked at."""
        return self._mappings.unobserved

    def read(self, dir_fd: int, name: bytes, known: Entry | None, known_stamp: bytes) -> Reading:
        """Read `name` in the directory `dir_fd`.

        Args:
            dir_fd: an open directory.
            name: one component.
            known: the entry last captured under that name, if any.
            known_stamp: its stamp.

        Raises:
            StoreUnavailable: content cannot be stored.
        """
        reading = VANISHED
        for _ in range(READ_ATTEMPTS):
            try:
                reading = self._read_once(dir_fd, name, known, known_stamp)
            except OSError as error:
                if error.errno in GONE_ERRNOS:
                    reading = VANISHED
                    continue  # gone, or no longer what it was: look again
                reason = error.strerror or "cannot be read"
                return Reading(None, b"", "failed", reason)
            if reading.doubt != "torn":
                return reading
        return reading

    def _read_once(
        self, dir_fd: int, name: bytes, known: Entry | None, known_stamp: bytes
    ) -> Reading:
        tick = tick_ns()
        status = os.lstat(name, dir_fd=dir_fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            return self._read_file(dir_fd, name, status, known, known_stamp)
        before = stamp(status)
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=dir_fd)
            entry = _entry(name, Kind.SYMLINK, status, target=target)
        elif kind == stat.S_IFIFO:
            entry = _entry(name, Kind.FIFO, status)
        else:
            return VANISHED  # a directory or a device took the place: the next scan sorts it
        entry = _with_xattrs(entry, _xattrs(_proc_path(dir_fd, name), follow=False))
        after = stamp(os.lstat(name, dir_fd=dir_fd))
        return Reading(entry, after, self._doubt(before, after, tick))

    def _read_file(
        self,
        dir_fd: int,
        name: bytes,
        status: os.stat_result,
        known: Entry | None,
        known_stamp: bytes,
    ) -> Reading:
        if status.st_nlink > 1:
            alias = self._aliases.get(stamp(status))
            if alias is not None:
                assert alias.entry is not None
                entry = msgspec.structs.replace(alias.entry, name=name)
                return Reading(entry, alias.stamp, alias.doubt)
        try:
            fd = open_file(dir_fd, name, status.st_uid)
        except PermissionError:
            return _locked(name, status, known, known_stamp)
        try:
            held = self._mappings.held(fd, status.st_size)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, "replaced while it was read")
            # What is open for writing is read, whatever was known of it.
            early = self._early if not held.volatile else None
            content = early.take(status) if early is not None else None
            bytes_read = 0
            if content is None:
                content = read_content(fd, status.st_size, self._writer)
                bytes_read = content.size
            entry = _entry(name, Kind.FILE, status, content=content)
            entry = _with_xattrs(entry, _xattrs(fd, follow=True))
            before, after = stamp(status), stamp(os.fstat(fd))
        finally:
            os.close(fd)
        doubt = self._doubt(before, after, held.tick_ns)
        if held.volatile and doubt != "torn":
            doubt = "volatile"
        reading = Reading(entry, after, doubt, bytes_read=bytes_read)
        if status.st_nlink > 1 and doubt != "torn":
            self._aliases[after] = reading
        return reading

    def _doubt(self, before: bytes, after: bytes, tick: int) -> Doubt | None:
        if before != after:
            return "torn"
        return None if settled(ctime_ns(after), tick, self._margin_ns) else "racy"


def open_file(dir_fd: int, name: bytes, owner: int) -> int:
    """Open a file of the user `owner` for reading, without a mark where that is allowed.

    Raises:
        OSError: it cannot be.
    """
    if os.geteuid() in (0, owner):
        try:
            return os.open(name, _OPEN_FLAGS | os.O_NOATIME, dir_fd=dir_fd)
        except PermissionError:
            pass  # O_NOATIME may be refused alone (user namespaces, some file systems)
    return os.open(name, _OPEN_FLAGS, dir_fd=dir_fd)


def read_content(
    fd: int, size: int, writer: ObjectWriter, between: Callable[[], None] | None = None
) -> Content:
    """Read the open file `fd`, and store its bytes.

    Args:
        fd: at its beginning.
        size: how long it is said to be.
        writer: where they go.
        between: called before each part of a long file; what it raises ends the reading.

    Raises:
        OSError: it cannot be read.
        StoreUnavailable: it cannot be stored.
    """
    if size <= WHOLE_MAX:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return put_bytes(data, writer)
    segments = _segments(fd)
    return put_stream(segments if between is None else _with_breaks(segments, between), writer)


def _with_breaks(
    segments: Iterator[bytes | int], between: Callable[[], None]
) -> Iterator[bytes | int]:
    for segment in segments:
        between()
        yield segment


def _segments(fd: int) -> Iterator[bytes | int]:
    """An open file as `put_stream` takes it: bytes in whole blocks, holes as counts of zero blocks.

    The hole layout is a hint that saves reading; a file without it is read in full.
    """
    at = 0
    hole_to = data_to = 0
    while True:
        if at >= data_to:
            hole_to, data_to = _next_data(fd, at)
        zeros = (hole_to - at) // BLOCK_BYTES
        if zeros > 0:
            yield zeros
            at += zeros * BLOCK_BYTES
        span = _read_span(fd, at)
        if span:
            yield span
        if len(span) < SPAN_BLOCKS * BLOCK_BYTES:
            return
        at += len(span)


def _next_data(fd: int, at: int) -> tuple[int, int]:
    """Where the next data at or after `at` begins and ends; twice the file's end if none does."""
    try:
        begin = os.lseek(fd, at, os.SEEK_DATA)
        return begin, os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError as error:
        size = os.fstat(fd).st_size
        return (size, size) if error.errno == errno.ENXIO else (at, size)


def _read_span(fd: int, at: int) -> bytes:
    """Up to `SPAN_BLOCKS` whole blocks; shorter only at the end of the file."""
    want = SPAN_BLOCKS * BLOCK_BYTES
    span = os.pread(fd, want, at)
    if not span or len(span) == want:
        return span
    parts = [span]
    have = len(span)
    while have < want and (span := os.pread(fd, want - have, at + have)):
        parts.append(span)
        have += len(span)
    return b"".join(parts)


def directory_entry(fd: int, name: bytes, status: os.stat_result) -> Entry:
    """The entry of the open directory `fd`, its child node still missing."""
    return _with_xattrs(_entry(name, Kind.DIR, status), _xattrs(fd, follow=True))


def _locked(
    name: bytes, status: os.stat_result, known: Entry | None, known_stamp: bytes
) -> Reading:
    """An unreadable file: what was last read of it stands if inode, size and mtime still do."""
    now = stamp(status)
    if (
        known is None
        or known.kind != Kind.FILE
        or now[4:12] != known_stamp[4:12]
        or (now[36:52] != known_stamp[36:52])
    ):
        return Reading(None, now, reason=LOCKED)
    entry = _entry(name, Kind.FILE, status, content=known.content)
    entry = _with_xattrs(entry, known.xattrs)
    return Reading(entry, now, reason=f"{LOCKED}: the content last read is kept")


def _entry(
    name: bytes,
    kind: Kind,
    status: os.stat_result,
    *,
    content: Content | None = None,
    target: bytes = b"",
) -> Entry:
    timed = kind in (Kind.FILE, Kind.SYMLINK)
    return Entry(
        name=name,
        kind=int(kind),
        mode=0o777 if kind is Kind.SYMLINK else status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=min(max(status.st_mtime_ns, _INT64_MIN), _UINT64_MAX) if timed else 0,
        content=content,
        target=target,
    )


def _with_xattrs(entry: Entry, xattrs: tuple[tuple[bytes, bytes], ...]) -> Entry:
    return msgspec.structs.replace(entry, xattrs=xattrs) if xattrs else entry


def _proc_path(dir_fd: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def _xattrs(what: int | bytes, *, follow: bool) -> tuple[tuple[bytes, bytes], ...]:
    """All extended attributes that can be seen, in name order; ACLs are among them.

    Raises:
        OSError: they exist but cannot be read.
    """
    try:
        names = os.listxattr(what, follow_symlinks=follow) if not follow else os.listxattr(what)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in sorted(set(map(os.fsencode, names)) - SHADOW_XATTRS):
        try:
            value = (
                os.getxattr(what, name)
                if follow
                else os.getxattr(what, name, follow_symlinks=False)
            )
        except OSError as error:
            if error.errno in _NO_XATTRS or error.errno in (errno.EACCES, errno.EPERM):
                continue  # removed meanwhile, or in a namespace closed to us
            raise
        found.append((name, value))
    return tuple(found)
