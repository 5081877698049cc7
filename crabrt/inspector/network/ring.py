"""A buffer that the kernel fills with the samples of one processor: drained, never waited for.

Layout: ``struct perf_event_mmap_page`` and the records behind it (linux/perf_event.h).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_DATA_BYTES: Final = 1 << 16
_HEAD, _TAIL = 1024, 1032
_WORD = struct.Struct("=Q")
_HEADER = struct.Struct("=IHH")
_WHO = struct.Struct("=IIQ")
_NAMED = struct.Struct("=II")
_SIZE = struct.Struct("=I")
_LOST, _COMM, _SAMPLE = 2, 3, 9
_LARGEST: Final = 4096
"""No record is larger (2,048 bytes of stack are)."""


class Sample(NamedTuple):
    """A tracepoint was passed.

    Attributes:
        time_ns: on the monotonic clock.
        pid, thread: who passed it.
        raw: the tracepoint's own record.
        stack: the caller's stack, from its pointer on; empty if that was not asked for.
        pointer: that stack pointer.
    """

    time_ns: int
    pid: int
    thread: int
    raw: bytes
    stack: bytes = b""
    pointer: int = 0


class Named(NamedTuple):
    """A process has another name from now on."""

    time_ns: int
    pid: int
    thread: int
    name: str


class Ring:
    """The buffer of `event`, which has to stay open as long.

    Attributes:
        lost: whether a record may not have found room since the last `drain`.
    """

    def __init__(self, event: int) -> None:
        self._map = mmap.mmap(event, mmap.PAGESIZE + _DATA_BYTES)
        self.lost = False

    def drain(self) -> Iterator[Sample | Named]:
        """What was written since the last time, oldest first."""
        (head,) = _WORD.unpack_from(self._map, _HEAD)
        (tail,) = _WORD.unpack_from(self._map, _TAIL)
        data = self._copied(tail, head)
        _WORD.pack_into(self._map, _TAIL, head)
        # A record that finds no room is dropped in silence until a later one finds some: what that
        # one tells first is of the time before this drain.
        was_lost, self.lost = self.lost, len(data) > _DATA_BYTES - _LARGEST
        at = 0
        while at < len(data):
            kind, _, size = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + size]
            at += size
            if kind == _SAMPLE:
                yield _sample(body)
            elif kind == _COMM:
                yield _named(body)
            elif kind == _LOST:
                self.lost = self.lost or not was_lost
            was_lost = False

    def _copied(self, tail: int, head: int) -> bytes:
        start, end = tail % _DATA_BYTES, head % _DATA_BYTES
        base = mmap.PAGESIZE
        if head == tail:
            return b""
        if start < end:
            return self._map[base + start : base + end]
        return self._map[base + start : base + _DATA_BYTES] + self._map[base : base + end]

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


def _sample(body: bytes) -> Sample:
    pid, thread, time_ns = _WHO.unpack_from(body)
    (size,) = _SIZE.unpack_from(body, _WHO.size)
    at = _WHO.size + _SIZE.size
    raw, at = body[at : at + size], at + size
    if len(body) - at < 2 * _WORD.size:
        return Sample(time_ns, pid, thread, raw)
    (abi,) = _WORD.unpack_from(body, at)
    at += _WORD.size
    pointer = 0
    if abi:
        (pointer,) = _WORD.unpack_from(body, at)
        at += _WORD.size
    (room,) = _WORD.unpack_from(body, at)
    at += _WORD.size
    filled = _WORD.unpack_from(body, at + room)[0] if room else 0
    return Sample(time_ns, pid, thread, raw, body[at : at + filled], pointer)


def _named(body: bytes) -> Named:
    pid, thread = _NAMED.unpack_from(body)
    _, _, time_ns = _WHO.unpack_from(body, len(body) - _WHO.size)
    name = body[_NAMED.size :].partition(b"\0")[0]
    return Named(time_ns, pid, thread, name.decode("utf-8", "replace"))
