"""A writer whose objects are gone when it closes: to look at a workspace without storing it.

What the store has is read from there; what it has not lies in an unnamed temporary file, so that a
large workspace costs disk for a moment, not memory. One thread uses it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Self

from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.ports import ObjectReader
from crabrt.errors import DamagedObject, StoreUnavailable


class ScratchWriter:
    """An `ObjectWriter` over `reader` that keeps nothing. A context manager.

    Raises:
        StoreUnavailable: from `put`, when the temporary directory is full.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._places: dict[ObjectId, tuple[int, int, ObjectKind]] = {}
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """Keep `data` for as long as this writer is open; its id."""
        found = object_id(data, kind)
        if found in self._places or self._reader.contains(found):
            return found
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise StoreUnavailable(
                f"no room to look at the workspace: {error.strerror}", where=tempfile.gettempdir()
            ) from error
        self._places[found] = (self._end, len(data), kind)
        self._end += len(data)
        return found

    def put_many(self, objects: Mapping[ObjectId, tuple[bytes, ObjectKind]]) -> None:
        """As `put`, for each."""
        for data, kind in objects.values():
            self.put(data, kind)

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """The object, from here or from the store."""
        place = self._places.get(object_id)
        if place is None:
            return self._reader.get(object_id, kind)
        offset, length, stored_kind = place
        if stored_kind != kind:
            raise DamagedObject(f"it is not of kind {kind.name}", where=object_id.hex())
        self._file.seek(offset)
        return self._file.read(length)

    def contains(self, object_id: ObjectId) -> bool:
        """Whether it is here or in the store."""
        return object_id in self._places or self._reader.contains(object_id)

    def flush(self) -> None:
        """Nothing here is to survive."""

    def sync(self) -> None:
        """Nothing here is to survive."""
