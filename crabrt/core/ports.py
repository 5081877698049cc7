"""The seams: what the floors above need from the floors below, as Protocols.

A port states its contract in prose; every implementation passes the same conformance suite
(``crabrt.testing.conformance``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from crabrt.core.ids import ObjectId, ObjectKind


class ObjectReader(Protocol):
    """Content-addressed objects, for reading. Safe to use from several threads."""

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """The object's bytes, checked against its id.

        Raises:
            DamagedObject: it is absent, or what is there has another id.
        """
        ...

    def contains(self, object_id: ObjectId) -> bool:
        """Whether `get` would find it (its bytes are not read)."""
        ...


class ObjectWriter(ObjectReader, Protocol):
    """Content-addressed objects, for writing. Safe to use from several threads.

    An object put is readable at once through the same writer; it is *captured* (survives SIGKILL of
    this process) when a later `flush` returned, and *durable* (survives power loss) when a later
    `sync` returned.
    """

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """Store `data` unless the store has it; its id.

        Raises:
            StoreUnavailable: it cannot be written (disk full, permission, store gone).
        """
        ...

    def put_many(self, objects: Mapping[ObjectId, tuple[bytes, ObjectKind]]) -> None:
        """Store `objects` (bytes and kind by `ids.object_id`), in order, as `put` does each.

        Costs less than as many calls of `put`.

        Raises:
            StoreUnavailable: not all of them can be written.
        """
        ...

    def flush(self) -> None:
        """Hand everything put so far to the operating system.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        ...

    def sync(self) -> None:
        """Make everything put so far durable. Implies `flush`.

        Raises:
            StoreUnavailable: it cannot be written or synced. After a failed fsync nothing of
                what was not yet durable is assumed to be: it must be put again.
        """
        ...


class BlobStore(Protocol):
    """Named immutable byte strings on a disk or an object store: what packs and segments lie on.

    Names are relative, ``/``-separated, ``[A-Za-z0-9._/-]+``. Contract, checked by the suite:
    `put` is atomic and put-if-absent (the second of two writers of one name gets False, and the
    bytes of the first stay); `get` returns all bytes or raises; ranges may be asked for; `list`
    is eventually complete and lexicographic; `delete` of an absent name is no error.
    """

    def put(self, name: str, data: bytes) -> bool:
        """Store `data` under `name` if there is none; whether this call did.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes, or `length` of them from `offset`.

        Raises:
            NotFound: there is no such name.
            DamagedObject: the range is not all there.
        """
        ...

    def size(self, name: str) -> int:
        """Its length in bytes.

        Raises:
            NotFound: there is no such name.
        """
        ...

    def list(self, prefix: str = "") -> list[str]:
        """All names that start with `prefix`, in order."""
        ...

    def delete(self, name: str) -> None:
        """Remove it if it is there."""
        ...
