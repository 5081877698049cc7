"""Reading the kernel's queue: a buffer of events into distinct reports, and what one says.

Layout (linux/fanotify.h): ``fanotify_event_metadata`` {length u32, version u8, reserved u8,
metadata length u16, mask u64, fd s32, pid s32}, then records {kind u8, pad u8, length u16, fsid
u64, file handle, and for one kind a name}. The records say what an event is about, so events with
equal records are folded before they are taken to pieces: that is what makes a burst cheap.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from crabrt.inspector.watch.kernel import Q_OVERFLOW, Handle

_METADATA = struct.Struct("=IBxHQii")
_RECORD = struct.Struct("=BxH8xI")  # kind, length, file system id, length of the handle's bytes
_VERSION: Final = 3
_HANDLE_AT: Final = 12  # in a record
_HANDLE_BYTES_AT: Final = 20
_OBJECT, _DIRECTORY_AND_NAME, _DIRECTORY = 1, 2, 3

_READ_BYTES: Final = 1 << 18
_ROUND_EVENTS: Final = 1 << 17
"""Read at once, at most: what is read is held in memory until it is placed."""


class Report(NamedTuple):
    """What events about one thing said.

    Attributes:
        mask: all that happened, in no order.
        directory: handle of the directory through which the object was reached; empty when the
            kernel did not know one.
        name: in it; ``.`` is the directory itself.
        object: handle of the file or directory that it happened to; empty if it is `directory`.
        pid: who did it last; 0 if that process has no id in this namespace.
    """

    mask: int
    directory: Handle
    name: bytes
    object: Handle
    pid: int


class Malformed(Exception):
    """The kernel speaks another version of the protocol."""


Folded = dict[bytes, tuple[int, int]]
"""The records of events, to the union of their masks and the last one's process."""


class Queue:
    """The events that wait in a group. Used by one thread at a time.

    Attributes:
        events: read in all.
        overflowed: events were lost; reset by whoever told of it.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self.events = 0
        self.overflowed = False

    def read(self) -> Folded:
        """Everything that waits.

        Raises:
            Malformed: what was read makes no sense.
            OSError: the group cannot be read.
        """
        found: Folded = {}
        before = self.events
        while self.events - before < _ROUND_EVENTS:
            try:
                buffer = os.read(self._group, _READ_BYTES)
            except BlockingIOError:
                break
            if not buffer:
                break
            self._fold(buffer, found)
        return found

    def _fold(self, buffer: bytes, found: Folded) -> None:
        unpack, known = _METADATA.unpack_from, found.get
        at, end, count = 0, len(buffer), 0
        while at < end:
            try:
                length, version, metadata_length, mask, _, pid = unpack(buffer, at)
            except struct.error as error:
                raise Malformed("an event was cut off") from error
            if version != _VERSION or metadata_length != _METADATA.size or length < metadata_length:
                raise Malformed(f"events of version {version}")
            if mask & Q_OVERFLOW:
                self.overflowed = True
            else:
                records = buffer[at + metadata_length : at + length]
                before = known(records)
                found[records] = (mask if before is None else before[0] | mask, pid)
            at += length
            count += 1
        self.events += count


def parse(records: bytes, mask: int, pid: int) -> Report:
    """Take one report to pieces.

    Raises:
        Malformed: it makes no sense.
    """
    directory = target = name = b""
    at, end = 0, len(records)
    try:
        while at < end:
            kind, length, handle_length = _RECORD.unpack_from(records, at)
            handle_end = at + _HANDLE_BYTES_AT + handle_length
            if handle_end > at + length:
                raise Malformed("a record was cut off")
            handle = records[at + _HANDLE_AT : handle_end]
            at += length
            if kind == _DIRECTORY_AND_NAME:
                directory = handle
                name = records[handle_end:at].rstrip(b"\0")
            elif kind == _OBJECT:
                target = handle
            elif kind == _DIRECTORY:
                directory = handle
    except struct.error as error:
        raise Malformed("a record was cut off") from error
    return Report(mask, directory, name, target, pid)
