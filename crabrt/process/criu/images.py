"""A directory of CRIU's images into the store, and back, byte for byte.

Files of pages are cut by address (`pagecuts`), everything else as the bytes of any file. Equal
pieces are stored once, whichever image they are of, so the second image of a process costs what
changed in it, and a block of zeros costs its name.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from crabrt.core.content import Content, build, piece_ids
from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.core.processes import ImageFile, ImageSet
from crabrt.errors import DamagedObject
from crabrt.process.criu import wire
from crabrt.process.criu.causes import Cause, NotImaged, NotRevived
from crabrt.process.criu.pagecuts import BLOCK_BYTES, cuts
from crabrt.store import ObjectRef
from crabrt.store.reachable import content_refs
from crabrt.workspace.files import read_content

_WINDOW_BYTES: Final = 4 << 20
"""How much of a file of pages is in memory at once."""
_PAGEMAP_MAX: Final = 64 << 20
"""A longer pagemap is not read: its file of pages is cut from the beginning."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PAGEMAP: Final = re.compile(r"pagemap-.*\.img")
_PAGES: Final = re.compile(r"pages-([0-9]{1,9})\.img")
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put_images(directory: Path, writer: ObjectWriter) -> ImageSet:
    """Store the images in `directory`; what they are.

    Memory: about 20 MiB, however large the images are.

    Raises:
        StoreUnavailable: they cannot be stored.
        NotImaged: they cannot be read, or something that is no image lies among them.
    """
    files = []
    try:
        maps = _pagemaps(directory)
        for name in sorted(os.listdir(directory)):
            if not _NAME.fullmatch(name):
                raise _no_image(directory / name)
            pages = _PAGES.fullmatch(name)
            fd = os.open(directory / name, _READ)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise _no_image(directory / name)
                content = (
                    _put_pages(fd, status.st_size, maps.get(int(pages[1])), writer)
                    if pages
                    else read_content(fd, status.st_size, writer)
                )
            finally:
                os.close(fd)
            files.append(ImageFile(name, content))
    except OSError as error:
        raise NotImaged(
            f"the images cannot be read: {error.strerror}", Cause.OTHER, where=str(directory)
        ) from error
    return ImageSet(tuple(files))


def _no_image(path: Path) -> NotImaged:
    return NotImaged("this lies among the images and is none", Cause.OTHER, where=str(path))


def _pagemaps(directory: Path) -> dict[int, wire.Pagemap]:
    """By the number of the file of pages; without those that are not understood, or in doubt."""
    found: dict[int, wire.Pagemap] = {}
    doubtful: set[int] = set()
    for name in os.listdir(directory):
        path = directory / name
        if not _PAGEMAP.fullmatch(name) or os.lstat(path).st_size > _PAGEMAP_MAX:
            continue
        with contextlib.suppress(wire.NotUnderstood):
            pagemap = wire.read_pagemap(path.read_bytes())
            if pagemap.pages_id in found:
                doubtful.add(pagemap.pages_id)
            found[pagemap.pages_id] = pagemap
    return {number: pagemap for number, pagemap in found.items() if number not in doubtful}


def _put_pages(fd: int, size: int, pagemap: wire.Pagemap | None, writer: ObjectWriter) -> Content:
    ids = _put_pieces(_windows(fd, cuts(size, pagemap)), writer)
    return build(size, ids, writer.put)


def _windows(fd: int, lengths: Iterable[int]) -> Iterator[list[bytes]]:
    """The pieces of a file, many at a time.

    Raises:
        OSError: it cannot be read, or is shorter than it was.
    """
    at, waiting, held = 0, [], 0
    for length in lengths:
        waiting.append(length)
        held += length
        if held >= _WINDOW_BYTES:
            yield _read(fd, at, waiting, held)
            at, waiting, held = at + held, [], 0
    if waiting:
        yield _read(fd, at, waiting, held)


def _read(fd: int, at: int, lengths: list[int], total: int) -> list[bytes]:
    parts = []
    have = 0
    while have < total:
        part = os.pread(fd, total - have, at + have)
        if not part:
            raise OSError(errno.ESTALE, "it became shorter while it was read")
        parts.append(part)
        have += len(part)
    view = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
    pieces, begin = [], 0
    for length in lengths:
        pieces.append(bytes(view[begin : begin + length]))
        begin += length
    return pieces


def _put_pieces(windows: Iterable[list[bytes]], writer: ObjectWriter) -> Iterator[ObjectId]:
    for pieces in windows:
        named = [(object_id(piece), piece) for piece in pieces]
        writer.put_many({name: (piece, ObjectKind.DATA) for name, piece in named})
        for name, _ in named:
            yield name


def get_images(image: ImageSet, directory: Path, reader: ObjectReader) -> None:
    """Write the images into `directory`, which is made, or is empty. Zeros become holes.

    Raises:
        DamagedObject: something of them is missing from the store, or wrong. What was written until
            then is removed.
        NotRevived: they cannot be written (`Cause.NO_SPACE`, or the system's reason); likewise.
    """
    made: list[Path] = []
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for file in image.files:
            _get_one(file, directory, made, reader)
    except OSError as error:
        _remove(made)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise NotRevived(
            f"the images cannot be written: {error.strerror}",
            Cause.NO_SPACE if full else Cause.OTHER,
            where=str(directory),
        ) from error
    except BaseException:
        _remove(made)
        raise


def _get_one(file: ImageFile, directory: Path, made: list[Path], reader: ObjectReader) -> None:
    if not _NAME.fullmatch(file.name):
        raise DamagedObject(f"an image is named {file.name!r}")
    fd = os.open(directory / file.name, _MAKE, 0o600)
    try:
        made.append(directory / file.name)
        _write(fd, file.content, reader)
    finally:
        os.close(fd)


def _write(fd: int, content: Content, reader: ObjectReader) -> None:
    at = 0
    for name in piece_ids(content, reader.get):
        zeros = _zeros().get(name)
        if zeros is not None:
            at += zeros
        else:
            piece = reader.get(name, ObjectKind.DATA)
            _write_at(fd, piece, at)
            at += len(piece)
        if at > content.size:
            break
    if at != content.size:
        raise DamagedObject(f"the pieces of an image of {content.size} bytes do not add up to it")
    os.truncate(fd, content.size)


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


@functools.cache
def _zeros() -> dict[ObjectId, int]:
    """The pieces of zeros that whole pages can give, by id: how long each is."""
    lengths = range(4 << 10, BLOCK_BYTES + 1, 4 << 10)
    return {object_id(bytes(length)): length for length in lengths}


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def image_objects(image: ImageSet) -> Iterator[ObjectRef]:
    """What an image refers to directly: roots for gc, whose mark follows the lists from there."""
    for file in image.files:
        yield from content_refs(file.content)
