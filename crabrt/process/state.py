"""What outlived a turn, in the store: a root of its own beside that of the files.

Its tree holds the file ``state``, an encoded `ProcessState`, and for each imaged tree a directory
named after the number of its topmost process, with the image's files. So gc, check and fork, which
know trees, know images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from crabrt.core.content import Content
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.listing import put_directory
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.core.processes import ImageFile, ImageSet, ProcessState, ProcessTree
from crabrt.core.trees import Entry, Kind, Root, encode_root, read_directory
from crabrt.errors import DamagedObject, NotFound
from crabrt.store.contents import put_bytes, read_bytes
from crabrt.workspace import find_entry

_STATE: Final = b"state"
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ProcessState).decode


def put_state(
    state: ProcessState, images: Mapping[int, ImageSet], writer: ObjectWriter
) -> ObjectId:
    """Store `state` with the images of its trees, by topmost process; the id of its root.

    Raises:
        StoreUnavailable: it cannot be written.
    """
    encoded = put_bytes(_encode(state), writer)
    entries = [_file(_STATE, encoded)]
    for pid, image in images.items():
        files = [_file(one.name.encode(), one.content) for one in image.files]
        child = put_directory(sorted(files, key=_name), writer.put)
        entries.append(_directory(b"%d" % pid, child))
    top = put_directory(sorted(entries, key=_name), writer.put)
    count = 1 + sum(len(image.files) for image in images.values())
    size = encoded.size + sum(image.size_bytes for image in images.values())
    root = Root(_directory(b"", top), files=count, size_bytes=size)
    return writer.put(encode_root(root), ObjectKind.ROOT)


def read_state(root: ObjectId, reader: ObjectReader) -> ProcessState:
    """The state that `put_state` stored.

    Raises:
        DamagedObject: it is missing, or not one.
    """
    try:
        content = find_entry(reader, root, _STATE).content
        if content is None:
            raise DamagedObject("a state of processes is no file", where=root.hex())
        return _decode(read_bytes(content, reader))
    except NotFound as error:
        raise DamagedObject("this is no state of processes", where=root.hex()) from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        malformed = f"a state of processes is malformed: {error}"
        raise DamagedObject(malformed, where=root.hex()) from error


def image_of(root: ObjectId, tree: ProcessTree, reader: ObjectReader) -> ImageSet:
    """The image of one tree of the state `root`.

    Raises:
        NotFound: it has none.
        DamagedObject: it is not whole.
    """
    directory = find_entry(reader, root, b"%d" % tree.top.pid)
    files = []
    for entry in read_directory(ObjectId(directory.child), reader.get):
        if entry.content is None:
            raise DamagedObject("an image has something that is no file", where=root.hex())
        files.append(ImageFile(entry.name.decode("utf-8", "replace"), entry.content))
    return ImageSet(tuple(files))


def _file(name: bytes, content: Content) -> Entry:
    return Entry(name, Kind.FILE, _FILE_MODE, 0, 0, content=content)


def _directory(name: bytes, child: ObjectId) -> Entry:
    return Entry(name, Kind.DIR, _DIRECTORY_MODE, 0, 0, child=child)


def _name(entry: Entry) -> bytes:
    return entry.name
