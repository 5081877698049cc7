"""CRIU's image files, as far as crabrt reads them: framing, protobuf's wire format, few messages.

An image file is two magic numbers and then entries: a length and a protobuf message each. Messages
are read by field number, as ``images/*.proto`` of CRIU numbers them; what is not needed is skipped,
so that a newer CRIU's additional fields do no harm. Encoding: https://protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_COMMON_MAGIC: Final = 0x54564319
_SERVICE_MAGIC: Final = 0x55105940
PAGEMAP_MAGIC: Final = 0x56084025
PSTREE_MAGIC: Final = 0x50273030
FILES_MAGIC: Final = 0x56303138
STATS_MAGIC: Final = 0x57093306
FILE_LOCKS_MAGIC: Final = 0x54323616
CORE_MAGIC: Final = 0x55053847

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX: Final = 10


class NotUnderstood(ValueError):
    """The bytes are no such image. Never leaves this package."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: as the message's definition numbers it.
        value: of an integer field; 0 for bytes.
        data: of a field of bytes, text or a message; empty for an integer.
        raw: the whole field as it stands in the message.
    """

    number: int
    value: int
    data: bytes
    raw: bytes


class Task(NamedTuple):
    """A process of an image, in the numbers of its own PID namespace."""

    pid: int
    parent: int
    group: int
    session: int
    threads: tuple[int, ...]


class PageRun(NamedTuple):
    """Pages that lie one after the other in memory, and in the file if `stored`.

    Attributes:
        address: of the first, in bytes.
        pages: how many.
        stored: whether they lie in the file of pages.
    """

    address: int
    pages: int
    stored: bool


class Pagemap(NamedTuple):
    """What a pagemap says: the number of its file of pages, and what is in it, in order."""

    pages_id: int
    runs: tuple[PageRun, ...]


class DumpTimes(NamedTuple):
    """What CRIU measured itself, in microseconds."""

    freezing_us: int
    frozen_us: int


def entries(data: bytes, magic: int) -> list[bytes]:
    """The messages in an image file.

    Raises:
        NotUnderstood: it is no file of this kind, or it is cut off.
    """
    if len(data) < _HEAD.size:
        raise NotUnderstood("shorter than its magic numbers")
    if _HEAD.unpack_from(data) not in {(_COMMON_MAGIC, magic), (_SERVICE_MAGIC, magic)}:
        raise NotUnderstood("other magic numbers")
    found = []
    at = _HEAD.size
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise NotUnderstood("cut off")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise NotUnderstood("cut off")
        found.append(data[at : at + length])
        at += length
    return found


def image(messages: list[bytes], magic: int) -> bytes:
    """The file whose `entries` are these."""
    parts = [_HEAD.pack(_COMMON_MAGIC, magic)]
    for message in messages:
        parts += (_LENGTH.pack(len(message)), message)
    return b"".join(parts)


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        NotUnderstood: it is no message.
    """
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        value, data = 0, b""
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            data = message[at : at + length]
            at += length
        elif kind in {_FIXED32, _FIXED64}:
            width = 4 if kind == _FIXED32 else 8
            value = int.from_bytes(message[at : at + width], "little")
            at += width
        else:
            raise NotUnderstood(f"wire type {kind}")
        if at > len(message):
            raise NotUnderstood("a field is cut off")
        yield Field(tag >> 3, value, data, message[begin:at])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if at + index >= len(data):
            raise NotUnderstood("a number is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise NotUnderstood("a number is too long")


def varint_field(number: int, value: int) -> bytes:
    """An integer field, encoded."""
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def bytes_field(number: int, data: bytes) -> bytes:
    """A field of bytes, or a message, encoded."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(data)) + data


def replaced(message: bytes, by: Mapping[int, bytes]) -> bytes:
    """A message with other encoded fields in place of those that have these numbers.

    Raises:
        NotUnderstood: it is no message.
    """
    return b"".join(by.get(field.number, field.raw) for field in fields(message))


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def numbers(message: bytes) -> dict[int, int]:
    """The integer fields of a message by number; the last of equal ones.

    Raises:
        NotUnderstood: it is no message.
    """
    return {field.number: field.value for field in fields(message) if not field.data}


def integers(message: bytes, number: int) -> list[int]:
    """A repeated integer field of a message, packed or not.

    Raises:
        NotUnderstood: it is no message.
    """
    found: list[int] = []
    for field in fields(message):
        if field.number == number:
            found += _packed(field.data) if field.data else [field.value]
    return found


def read_tasks(data: bytes) -> list[Task]:
    """The processes of a ``pstree.img`` (pstree.proto), the root first.

    Raises:
        NotUnderstood: it is none.
    """
    tasks = []
    for message in entries(data, PSTREE_MAGIC):
        found = numbers(message)
        threads = integers(message, 5)
        if 1 not in found:
            raise NotUnderstood("a process without a number")
        pid, parent, group, session = (found.get(number, 0) for number in (1, 2, 3, 4))
        tasks.append(Task(pid, parent, group, session, tuple(threads)))
    if not tasks:
        raise NotUnderstood("no process")
    return tasks


def _packed(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


_PARENT, _LAZY, _PRESENT = 1, 2, 4  # pagemap.flags: PE_PARENT, PE_LAZY, PE_PRESENT


def read_pagemap(data: bytes) -> Pagemap:
    """A ``pagemap-*.img`` (pagemap.proto).

    Raises:
        NotUnderstood: it is none.
    """
    messages = entries(data, PAGEMAP_MAGIC)
    if not messages:
        raise NotUnderstood("an empty pagemap")
    head = numbers(messages[0])
    if 1 not in head:
        raise NotUnderstood("a pagemap without a file of pages")
    runs = []
    for message in messages[1:]:
        found = numbers(message)
        pages = found.get(5, found.get(2, 0))
        stored = bool(found[4] & _PRESENT) if 4 in found else not found.get(3, 0)
        runs.append(PageRun(found.get(1, 0), pages, stored))
    return Pagemap(head[1], tuple(runs))


def read_dump_times(data: bytes) -> DumpTimes:
    """A ``stats-dump`` (stats.proto).

    Raises:
        NotUnderstood: it is none.
    """
    for message in entries(data, STATS_MAGIC):
        for field in fields(message):
            if field.number == 1 and field.data:
                found = numbers(field.data)
                return DumpTimes(found.get(1, 0), found.get(2, 0))
    raise NotUnderstood("no times of a dump")
