"""Objects in a dictionary: the smallest `ObjectWriter` there is, to test what stands on one."""

from __future__ import annotations

from collections.abc import Mapping

from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.errors import DamagedObject


class MemoryObjects:
    """Content-addressed objects in memory.

    Attributes:
        objects: the bytes by id.
        reads: how many objects were read.
    """

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}
        self.reads = 0

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """Keep `data`; its id."""
        name = object_id(data, kind)
        self.objects.setdefault(name, bytes(data))
        return name

    def put_many(self, objects: Mapping[ObjectId, tuple[bytes, ObjectKind]]) -> None:
        """Keep all of them."""
        for name, (data, _) in objects.items():
            self.objects.setdefault(name, data)

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:  # noqa: ARG002 - the port's
        """The bytes of an object.

        Raises:
            DamagedObject: it was never put.
        """
        self.reads += 1
        try:
            return self.objects[object_id]
        except KeyError:
            raise DamagedObject("no such object", where=object_id.hex()) from None

    def contains(self, object_id: ObjectId) -> bool:
        """Whether it was put."""
        return object_id in self.objects

    def flush(self) -> None:
        """Memory has nobody to hand things to."""

    def sync(self) -> None:
        """Nor anything to make durable."""
