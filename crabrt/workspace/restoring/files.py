"""One file, link or FIFO at a time: written under a temporary name, and compared with its entry.

A temporary name is a function of the restore's id and of the final name, so that whoever finishes
an interrupted restore knows what may lie about without having to search for it.
"""

from __future__ import annotations

import errno
import os

import xxhash

from crabrt.core.content import Content
from crabrt.core.failpoints import declare
from crabrt.core.ids import object_id
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry, Kind
from crabrt.store.contents import ZERO_BLOCK, read_blocks
from crabrt.workspace.restoring.handles import Blocked, by_descriptor, look
from crabrt.workspace.restoring.metadata import (
    differences,
    kind_of,
    read_xattrs,
    set_metadata,
    wanted_xattrs,
)

_READ_BYTES = 1 << 20
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

FATAL_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
)
"""After one of these, trying the next path is of no use."""

_made = declare("restore.temp_made", "a temporary file lies beside the old one, perhaps incomplete")
_staged = declare("restore.staged", "a temporary file is complete, the old one still in place")


def temp_name(restore_id: str, name: bytes) -> bytes:
    """The temporary name that `name` has while the restore `restore_id` writes it."""
    return f".crab-{restore_id}-{xxhash.xxh3_64_hexdigest(name)}".encode()


def stage(parent_fd: int, temp: bytes, entry: Entry, reader: ObjectReader) -> list[str]:
    """Make what `entry` describes under the name `temp`, complete with its metadata.

    Returns:
        Which metadata could not be set.

    Raises:
        OSError: it cannot be made; nothing is left under that name.
        DamagedObject: its bytes cannot be read; nothing is left.
    """
    try:
        if entry.kind == Kind.SYMLINK:
            missing = _make_symlink(parent_fd, temp, entry)
        elif entry.kind == Kind.FIFO:
            os.mkfifo(temp, 0o600, dir_fd=parent_fd)
            missing = in_place(parent_fd, temp, entry)
        else:
            missing = _make_file(parent_fd, temp, entry, reader)
    except BaseException:
        remove(parent_fd, temp)
        raise
    _staged()
    return missing


def in_place(parent_fd: int, name: bytes, entry: Entry) -> list[str]:
    """Set the metadata of what is there under `name`. As `metadata.set_metadata`."""
    fd = look(parent_fd, name)
    try:
        if kind_of(os.fstat(fd).st_mode) != entry.kind:
            raise Blocked("it changed while it was being restored")
        return set_metadata(by_descriptor(fd), entry)
    finally:
        os.close(fd)


def remove(parent_fd: int, name: bytes) -> bool:
    """Unlink `name`; whether it was there."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return False
    return True


def status(parent_fd: int, name: bytes) -> os.stat_result | None:
    """What ``lstat`` says about a name, or None if there is nothing."""
    try:
        return os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def compare(
    parent_fd: int, name: bytes, entry: Entry, reader: ObjectReader, *, deep: bool
) -> list[str]:
    """In which ways what is on the disk differs from `entry`; ``absent`` stands alone.

    Args:
        parent_fd: the directory it is in.
        name: its name there.
        entry: what it should be.
        reader: has the bytes.
        deep: compare the bytes, too (else size and times speak for them).
    """
    try:
        if deep and entry.content is not None:
            fd = _open_file(parent_fd, name)
            if fd is not None:
                return _compare_file(fd, entry, entry.content, reader)
        fd = look(parent_fd, name)
    except FileNotFoundError:
        return ["absent"]
    try:
        found = os.fstat(fd)
        if kind_of(found.st_mode) != entry.kind:
            return ["kind"]
        wrong = differences(entry, found)
        if read_xattrs(by_descriptor(fd)) != wanted_xattrs(entry):
            wrong.append("xattrs")
        if entry.kind == Kind.SYMLINK and os.readlink(b"", dir_fd=fd) != entry.target:
            wrong.append("target")
        return wrong
    finally:
        os.close(fd)


def _open_file(parent_fd: int, name: bytes) -> int | None:
    """A descriptor to read from, or None where only a look is allowed, or it is a symlink."""
    try:
        return os.open(name, _READ, dir_fd=parent_fd)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO):
            return None
        raise


def _compare_file(fd: int, entry: Entry, content: Content, reader: ObjectReader) -> list[str]:
    """As `compare`; closes `fd`."""
    try:
        found = os.fstat(fd)
        if kind_of(found.st_mode) != entry.kind:
            return ["kind"]
        wrong = differences(entry, found)
        if read_xattrs(fd) != wanted_xattrs(entry):
            wrong.append("xattrs")
        if "size" not in wrong and not _same_bytes(fd, content, reader):
            wrong.append("content")
        return wrong
    finally:
        os.close(fd)


def _same_bytes(fd: int, content: Content, reader: ObjectReader) -> bool:
    if len(content.ids) == 1 and content.level == 0 and content.size <= _READ_BYTES:
        data = os.pread(fd, content.size + 1, 0)
        return len(data) == content.size and object_id(data) == content.ids[0]
    return all(_next_is(fd, block) for block in read_blocks(content, reader)) and not os.read(fd, 1)


def _next_is(fd: int, block: bytes) -> bool:
    view = memoryview(block)
    while view:
        data = os.read(fd, min(len(view), _READ_BYTES))
        if not data or data != view[: len(data)]:
            return False
        view = view[len(data) :]
    return True


def _make_symlink(parent_fd: int, temp: bytes, entry: Entry) -> list[str]:
    os.symlink(entry.target, temp, dir_fd=parent_fd)
    _made()
    return in_place(parent_fd, temp, entry)


def _make_file(parent_fd: int, temp: bytes, entry: Entry, reader: ObjectReader) -> list[str]:
    assert entry.content is not None
    fd = os.open(temp, _CREATE, 0o600, dir_fd=parent_fd)
    try:
        _made()
        _write(fd, entry.content, reader)
        return set_metadata(fd, entry)
    finally:
        os.close(fd)


def _write(fd: int, content: Content, reader: ObjectReader) -> None:
    offset = 0
    block = b""
    for block in read_blocks(content, reader):
        if block is not ZERO_BLOCK:
            _write_at(fd, block, offset)
        offset += len(block)
    if block is ZERO_BLOCK:
        os.ftruncate(fd, offset)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)
