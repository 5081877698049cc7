"""A record's bytes back into an object: every check between the disk and a caller."""

from __future__ import annotations

from crabrt.core.ids import Buffer, ObjectId, ObjectKind, object_id
from crabrt.errors import DamagedObject
from crabrt.store import compression, frames

_HINT = "run `crab check`, then `crab repair`"


def unpack(record: Buffer, where: str, expected: ObjectId, kind: ObjectKind | None) -> bytes:
    """The object in a record: magic, lengths, checksum, kind, codec, and at last its id.

    Args:
        record: as many bytes as there are of it.
        where: ``pack:offset``, for the error.
        expected: the id it must have.
        kind: the kind it must have, or None for whichever it says.

    Raises:
        DamagedObject: it is not that object, whole and right.
    """
    frame = frames.parse(record)
    if frame is None or frame.id != expected:
        raise DamagedObject("the record is not there", where=where, hint=_HINT)
    payload = memoryview(record)[frames.HEADER_BYTES :]
    if not frames.intact(frame, payload):
        raise DamagedObject("the record's checksum is wrong", where=where, hint=_HINT)
    found = ObjectKind(frame.kind)
    if kind is not None and found is not kind:
        raise DamagedObject(
            f"object {expected.hex()} is a {found.name}, not a {kind.name}", where=where, hint=_HINT
        )
    try:
        data = compression.decompress(frame.codec, payload, frame.raw)
    except ValueError as error:
        raise DamagedObject(f"the record cannot be unpacked: {error}", where=where) from error
    if object_id(data, found) != expected:
        raise DamagedObject("the record's bytes are not those of its id", where=where, hint=_HINT)
    return data
