"""Many small objects put as one: the ids at once, what costs per call only once for all.

Looking an object up in the catalog, taking a lock and handing a record over cost more than hashing
a tree node. A capture puts a hundred of them that need each other's ids and nothing else, so they
wait here until they are many, or until the capture is complete.
"""

from __future__ import annotations

from collections.abc import Mapping

from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.ports import ObjectWriter

BATCH_BYTES = 1 << 20
BATCH_OBJECTS = 512


class Batch:
    """An `ObjectWriter` in front of another; for one thread.

    What is put is stored (and can fail) later than it was put, at the latest by `flush`: whoever
    makes a batch flushes it before anything relies on it. A batch that is dropped without was not
    put, or in part, which is garbage.
    """

    def __init__(self, writer: ObjectWriter) -> None:
        self._writer = writer
        self._waiting: dict[ObjectId, tuple[bytes, ObjectKind]] = {}
        self._bytes = 0

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """As `ObjectWriter.put`; the error may be about what was put before."""
        found = object_id(data, kind)
        if found not in self._waiting:
            self._waiting[found] = (data, kind)
            self._bytes += len(data)
            if self._bytes >= BATCH_BYTES or len(self._waiting) >= BATCH_OBJECTS:
                self.hand_over()
        return found

    def put_many(self, objects: Mapping[ObjectId, tuple[bytes, ObjectKind]]) -> None:
        """As `ObjectWriter.put_many`."""
        self.hand_over()
        self._writer.put_many(objects)

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """As `ObjectReader.get`."""
        self.hand_over()
        return self._writer.get(object_id, kind)

    def contains(self, object_id: ObjectId) -> bool:
        """As `ObjectReader.contains`."""
        return object_id in self._waiting or self._writer.contains(object_id)

    def hand_over(self) -> None:
        """Put what waits; the writer behind still has to be flushed.

        Raises:
            StoreUnavailable: it cannot be stored, and waits on: no later call succeeds without it.
        """
        if self._waiting:
            self._writer.put_many(self._waiting)
            self._waiting, self._bytes = {}, 0

    def flush(self) -> None:
        """As `ObjectWriter.flush`."""
        self.hand_over()
        self._writer.flush()

    def sync(self) -> None:
        """As `ObjectWriter.sync`."""
        self.hand_over()
        self._writer.sync()
