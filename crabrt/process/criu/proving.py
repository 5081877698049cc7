"""Whether a process that sleeps has the memory that an image of it has.

Whoever was imaged runs for a moment when CRIU lets go: its sleep was interrupted. Its CPU clock
moves, and cannot tell that from work. Its memory can: code that does anything leaves traces on its
stack. Once that was compared, the clock alone proves the rest.

The kernel writes there as well: on which CPU a thread runs, for the C library (rseq(2)). Who is
woken may be woken on another one, so those bytes are not compared.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from crabrt.core.content import piece_ids
from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.ports import ObjectReader
from crabrt.core.processes import ImageSet
from crabrt.errors import CrabError
from crabrt.process.criu import wire
from crabrt.process.criu.pagecuts import cuts
from crabrt.store.contents import read_bytes

_PAGEMAP: Final = re.compile(r"pagemap-([0-9]+)\.img")
_CORE_THREAD, _THREAD_RSEQ, _RSEQ_ADDRESS = 5, 15, 1
"""Fields of core.proto and rseq.proto."""
_RSEQ_TOLD: Final = ((0, 8), (20, 28))
"""Where ``struct rseq`` has the CPU, and where its node and its number in the process."""


def same_memory(image: ImageSet, pids: Mapping[int, int], reader: ObjectReader) -> bool:
    """Whether every page of `image` is in the processes as it is there; unknown is no.

    Args:
        image: of a tree.
        pids: the numbers of its processes, by those that they have in their own namespace.
        reader: has the image's lists of pages, not necessarily its pages.
    """
    return _same_memory(_Stored(image, reader), pids)


def same_memory_as_files(directory: Path, pids: Mapping[int, int]) -> bool:
    """The same of an image that is not stored yet, as CRIU wrote it into `directory`."""
    try:
        names = frozenset(os.listdir(directory))
    except OSError:
        return False
    return _same_memory(_Files(directory, names), pids)


class _Piece(NamedTuple):
    """A piece of a file of pages: how long it is, whether bytes are it, and its own."""

    length: int
    is_same: Callable[[bytes], bool]
    get: Callable[[], bytes]


class _Stored:
    """An image in the store: its pieces are known by their ids."""

    def __init__(self, image: ImageSet, reader: ObjectReader) -> None:
        self._files = {one.name: one.content for one in image.files}
        self._reader = reader
        self.names: Collection[str] = self._files

    def read(self, name: str) -> bytes:
        return read_bytes(self._files[name], self._reader)

    def pieces(self, name: str, pagemap: wire.Pagemap) -> Iterator[_Piece]:
        content = self._files[name]
        ids = piece_ids(content, self._reader.get)
        for length, name_of_it in zip(cuts(content.size, pagemap), ids, strict=True):
            get = partial(self._reader.get, name_of_it, ObjectKind.DATA)
            yield _Piece(length, partial(_has_id, name_of_it), get)

    def size(self, name: str) -> int:
        return self._files[name].size


@dataclass(frozen=True)
class _Files:
    """An image in a directory: its pieces are there."""

    directory: Path
    names: Collection[str]

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def pieces(self, name: str, pagemap: wire.Pagemap) -> Iterator[_Piece]:
        with open(self.directory / name, "rb") as file:
            for length in cuts(self.size(name), pagemap):
                piece = file.read(length)
                yield _Piece(length, partial(operator.eq, piece), partial(bytes, piece))

    def size(self, name: str) -> int:
        return (self.directory / name).stat().st_size


def _has_id(name: ObjectId, piece: bytes) -> bool:
    return object_id(piece) == name


def _same_memory(image: _Stored | _Files, pids: Mapping[int, int]) -> bool:
    if any(name.startswith("pagemap-shmem") for name in image.names):
        return False  # shared memory may be changed by others
    maps = {int(found[1]): name for name in image.names if (found := _PAGEMAP.fullmatch(name))}
    if set(maps) != set(pids):
        return False
    try:
        tasks = {task.pid: task for task in wire.read_tasks(image.read("pstree.img"))}
        return all(
            _same(
                pids[number],
                wire.read_pagemap(image.read(name)),
                image,
                _told_by_the_kernel(tasks[number], image),
            )
            for number, name in maps.items()
        )
    except (OSError, CrabError, KeyError, wire.NotUnderstood):
        return False


def _same(
    pid: int, pagemap: wire.Pagemap, image: _Stored | _Files, told: Sequence[tuple[int, int]]
) -> bool:
    name = f"pages-{pagemap.pages_id}.img"
    if name not in image.names:
        return False
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans = _Spans(pagemap, image.size(name))
        return all(
            _is_same(piece, list(spans.take(piece.length)), memory, told)
            for piece in image.pieces(name, pagemap)
        )
    except ValueError:  # more pieces than their lengths, or the other way round
        return False
    finally:
        os.close(memory)


def _is_same(
    piece: _Piece,
    spans: Sequence[tuple[int, int]],
    memory: int,
    told: Sequence[tuple[int, int]],
) -> bool:
    """Whether a piece of an image is what lies at `spans`, but for what the kernel `told`."""
    now = b"".join(_read(memory, at, size) for at, size in spans)
    if piece.is_same(now):
        return True
    left_out = []
    begin = 0
    for at, size in spans:
        here = ((max(start, at), min(end, at + size)) for start, end in told)
        left_out += [(begin + start - at, begin + end - at) for start, end in here if start < end]
        begin += size
    return bool(left_out) and _without(now, left_out) == _without(piece.get(), left_out)


def _without(data: bytes, left_out: Iterable[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for begin, end in left_out:
        changed[begin:end] = bytes(end - begin)
    return bytes(changed)


def _told_by_the_kernel(task: wire.Task, image: _Stored | _Files) -> list[tuple[int, int]]:
    """Where the kernel tells the threads of a process on which CPU they run: addresses."""
    found = []
    for thread in task.threads:
        for core in wire.entries(image.read(f"core-{thread}.img"), wire.CORE_MAGIC):
            for of_thread in _submessages(core, _CORE_THREAD):
                for rseq in _submessages(of_thread, _THREAD_RSEQ):
                    address = wire.numbers(rseq).get(_RSEQ_ADDRESS, 0)
                    found += [(address + begin, address + end) for begin, end in _RSEQ_TOLD]
    return found


def _submessages(message: bytes, number: int) -> list[bytes]:
    return [field.data for field in wire.fields(message) if field.number == number]


class _Spans:
    """Where the bytes of a file of pages lie in memory, taken piece by piece."""

    def __init__(self, pagemap: wire.Pagemap, size_bytes: int) -> None:
        stored = [run for run in pagemap.runs if run.stored]
        pages = sum(run.pages for run in stored)
        if not pages or size_bytes % pages:
            raise wire.NotUnderstood("pages and their map do not agree")
        page_bytes = size_bytes // pages
        self._spans = iter((run.address, run.pages * page_bytes) for run in stored)
        self._at, self._left = 0, 0

    def take(self, length: int) -> Iterator[tuple[int, int]]:
        """Addresses and sizes of the next `length` bytes."""
        while length:
            if not self._left:
                self._at, self._left = next(self._spans, (0, 0))
                if not self._left:
                    raise wire.NotUnderstood("a file of pages is longer than its map")
            size = min(length, self._left)
            yield self._at, size
            self._at, self._left, length = self._at + size, self._left - size, length - size


def _read(memory: int, at: int, size: int) -> bytes:
    data = os.pread(memory, size, at)
    if len(data) != size:
        raise OSError("memory is not there any more")
    return data
