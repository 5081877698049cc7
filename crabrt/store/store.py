"""The store: one directory of content-addressed objects, for reading; `Store.writer` writes."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.errors import DamagedObject, UsageError
from crabrt.store import layout, records
from crabrt.store.failures import unavailable
from crabrt.store.format import Format, create_format, read_format
from crabrt.store.index import Index
from crabrt.store.ownpacks import PACK_BYTES
from crabrt.store.packs import Location, read_exactly
from crabrt.store.salvage import adopt_orphans
from crabrt.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORKED: list[object] = []
"""What forked children must neither use nor finalise: connections that belong to their parent."""


class Store:
    """A store at `home`, as an `ObjectReader`. Thread-safe; belongs to the process that opened it.

    Any number of processes of one user may have it open, read and write at once. Use it as a
    context manager, or `close` it.
    """

    def __init__(self, home: Path, format: Format) -> None:  # noqa: A002 - it is the store's format
        self.home = home
        self.format = format
        self.index = Index(home)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._writers: weakref.WeakSet[StoreWriter] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def open(cls, home: Path, *, create: bool = False) -> Store:
        """Open the store at `home`.

        Args:
            home: its directory.
            create: make it if it is absent (safe beside others who do).

        Raises:
            NotFound: there is none, and `create` is not set.
            FormatTooNew: a newer crabrt wrote it.
            Damaged: its ``format.json`` is not readable.
            StoreUnavailable: it cannot be read or created.
        """
        home = Path(home).absolute()
        return cls(home, create_format(home) if create else read_format(home))

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """The object's bytes, checked against the frame's checksum and against its id.

        Raises:
            DamagedObject: it is absent, or its bytes are not right; `where` names pack and offset.
            StoreUnavailable: the packs cannot be read.
        """
        self.check_process()
        problem: DamagedObject | None = None
        for attempt in range(3):
            for location in self.locate(object_id):
                try:
                    return self.read_at(object_id, kind, location)
                except DamagedObject as error:
                    problem = error
                    self.index.drop_file(location.pack)
            if attempt == 0:
                self.index.refresh()
            elif attempt == 1 and not self.index.distrust():
                break
        if problem is not None:
            raise problem
        raise DamagedObject(
            "the store does not have this object", where=object_id.hex(), hint="run `crab check`"
        )

    def contains(self, object_id: ObjectId) -> bool:
        """Whether the object is in a pack that exists.

        Raises:
            StoreUnavailable: the packs cannot be read.
        """
        self.check_process()
        if self._there(self.locate(object_id)):
            return True
        self.index.refresh()
        return self._there(self.locate(object_id))

    def _there(self, locations: Iterable[Location]) -> bool:
        own = {pack for writer in self.live_writers() for pack in writer.open_packs()}
        return any(
            at.pack in own or os.path.exists(layout.pack_path(self.home, at.pack))
            for at in locations
        )

    def locate(self, object_id: ObjectId) -> list[Location]:
        """Every known place of an object; those of this process's own writers first."""
        own = [at for writer in self.live_writers() if (at := writer.own(object_id)) is not None]
        return own + self.index.find(object_id)

    def read_at(self, object_id: ObjectId, kind: ObjectKind, at: Location) -> bytes:
        """Read and verify the record at a place.

        Raises:
            DamagedObject: what is there is not this object.
            StoreUnavailable: the pack cannot be read.
        """
        return records.unpack(self.read_record(at), f"{at.pack}:{at.offset}", object_id, kind)

    def read_record(self, at: Location) -> bytes:
        """The raw bytes at a place, as many as there are of its record.

        Raises:
            DamagedObject: the pack is gone.
            StoreUnavailable: the pack cannot be read.
        """
        for writer in self.live_writers():
            record = writer.read_own(at)
            if record is not None:
                return record
        try:
            file = self.index.file(at.pack)
            return read_exactly(file.fd, at.length, at.offset)
        except FileNotFoundError as error:
            raise DamagedObject("the pack is gone", where=f"{at.pack}:{at.offset}") from error
        except OSError as error:
            raise unavailable(
                error, layout.pack_path(self.home, at.pack), "reading a pack"
            ) from error

    def writer(self, *, pack_bytes: int = PACK_BYTES) -> StoreWriter:
        """Register a new writer, after the packs of dead ones were sealed.

        Args:
            pack_bytes: a pack that reached this length is sealed, and another one begun.

        Raises:
            StoreUnavailable: the store cannot be written.
        """
        self.check_process()
        try:
            for name in layout.DIRECTORIES:
                layout.make_directory(self.home / name)
        except OSError as error:
            raise unavailable(error, self.home, "preparing the store") from error
        adopt_orphans(self.index)
        writer = StoreWriter(self, pack_bytes)
        with self._lock:
            self._writers.add(writer)
        return writer

    def live_writers(self) -> list[StoreWriter]:
        """The writers of this process on this `Store`."""
        if not self._writers:
            return []
        with self._lock:
            return list(self._writers)

    def forget_writer(self, writer: StoreWriter) -> None:
        """A writer closed."""
        with self._lock:
            self._writers.discard(writer)

    def check_process(self) -> None:
        """Refuse use in a forked child, where locks and connections are the parent's.

        Raises:
            UsageError: this is a forked child; or the store is closed.
        """
        if self._pid != os.getpid():
            raise UsageError(
                "a store cannot be used across a fork",
                where=str(self.home),
                hint="open it in the child",
            )
        if self._closed:
            raise UsageError("the store is closed", where=str(self.home))

    def close(self) -> None:
        """Close its writers, then everything else. Closing twice is no error.

        Raises:
            StoreUnavailable: a writer could not hand over what was put.
        """
        if self._closed:
            return
        if self._pid != os.getpid():
            _FORKED.append(self)
            return
        try:
            with contextlib.ExitStack() as stack:
                for writer in self.live_writers():
                    stack.callback(writer.close)
        finally:
            self._closed = True
            self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
