"""Files that may have grown since an image was taken: their recorded length is dropped.

CRIU refuses a file whose length differs from the dump's, because a process may rely on what it read
or mapped. A log that is only written to is no such case. Descriptors opened with O_APPEND and
O_WRONLY it lets pass by itself; for what a shell opened with ``>`` there is no option, so the
length is taken out of the images, for named files and for descriptors that cannot read.

A descriptor that stood at the end of the file stands at its end again, wherever that is now:
nothing of what was written since is overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from crabrt.process.criu import wire
from crabrt.process.criu.causes import Cause, NotRevived

FILE: Final = "files.img"
_REG: Final = 3  # file_entry.reg of fdinfo.proto
_FLAGS, _POSITION, _NAME, _SIZE = 2, 3, 6, 8  # reg_file_entry of regfile.proto
_VALIDATION: Final = frozenset({_SIZE, 11, 12, 13, 14})  # length, build id, checksum


def allowed(images: Path, paths: Iterable[str]) -> bytes:
    """The list of files of an image, in which the files `paths` may have any length.

    Args:
        images: not changed.
        paths: absolute.

    Raises:
        NotRevived: the images cannot be read, or are not understood.
    """
    try:
        files = wire.entries((images / FILE).read_bytes(), wire.FILES_MAGIC)
        names = {path.encode("utf-8", "surrogateescape").strip(b"/") for path in paths}
        return wire.image([_file(message, names) for message in files], wire.FILES_MAGIC)
    except (OSError, wire.NotUnderstood) as error:
        raise NotRevived(
            f"the list of files among the images cannot be used: {error}",
            Cause.DAMAGED_IMAGE,
            where=str(images),
        ) from error


def written(images: Path) -> list[str]:
    """The absolute paths of the files that are open only for writing, by somebody of the tree.

    Raises:
        NotRevived: the images cannot be read, or are not understood.
    """
    try:
        files = wire.entries((images / FILE).read_bytes(), wire.FILES_MAGIC)
        found = [
            _write_only(field.data)
            for one in files
            for field in wire.fields(one)
            if field.number == _REG and field.data
        ]
    except (OSError, wire.NotUnderstood) as error:
        raise NotRevived(
            f"the list of files among the images cannot be used: {error}",
            Cause.DAMAGED_IMAGE,
            where=str(images),
        ) from error
    paths = ["/" + os.fsdecode(name.strip(b"/")) for name in found if name]
    return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]


def _write_only(message: bytes) -> bytes:
    """The name of a regular file that is open only for writing; else empty."""
    values = {field.number: field for field in wire.fields(message)}
    flags = values[_FLAGS].value if _FLAGS in values else os.O_RDONLY
    is_written = flags & os.O_ACCMODE == os.O_WRONLY and _NAME in values
    return values[_NAME].data if is_written else b""


def _file(message: bytes, names: Iterable[bytes]) -> bytes:
    parts = []
    for field in wire.fields(message):
        if field.number == _REG and field.data:
            regular = _regular(field.data, names)
            parts.append(wire.bytes_field(_REG, regular))
        else:
            parts.append(field.raw)
    return b"".join(parts)


def _regular(message: bytes, names: Iterable[bytes]) -> bytes:
    found: Sequence[wire.Field] = list(wire.fields(message))
    values = {field.number: field for field in found}
    name = values[_NAME].data.strip(b"/") if _NAME in values else b""
    flags = values[_FLAGS].value if _FLAGS in values else os.O_RDONLY
    if name not in names or flags & os.O_ACCMODE != os.O_WRONLY:
        return message
    at_end = (
        _POSITION in values and _SIZE in values and values[_POSITION].value == values[_SIZE].value
    )
    parts = []
    for field in found:
        if field.number in _VALIDATION:
            continue
        if field.number == _POSITION and at_end:
            parts.append(wire.varint_field(_POSITION, os.stat(b"/" + name).st_size))
        else:
            parts.append(field.raw)
    return b"".join(parts)
