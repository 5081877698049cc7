"""Writing objects: dedupe, compress, append, sync, and the writer's half of the gc protocol."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from crabrt.core import failpoints
from crabrt.core.ids import Buffer, ObjectId, ObjectKind
from crabrt.core.ids import object_id as compute_id
from crabrt.errors import DamagedObject, UsageError
from crabrt.store import compression, frames, layout, locks
from crabrt.store.failures import unavailable
from crabrt.store.index import lock_path
from crabrt.store.losses import Losses
from crabrt.store.openpack import Record
from crabrt.store.ownpacks import PACK_BYTES, OwnPacks
from crabrt.store.packs import Location
from crabrt.store.references import References

if TYPE_CHECKING:
    from crabrt.store.store import Store

_PUSH_ROWS = 256
"""As many rows are worth a transaction of the catalog's."""
_FRESH_MAX = 8192
"""With as many rows in memory, `sync` itself moves them to the catalog."""

_registered = failpoints.declare(
    "writer.registered", "a writer's lock is held, it has written nothing"
)
_closing = failpoints.declare(
    "writer.sealed", "a closing writer's packs are sealed and durable, its lock held"
)


@dataclass
class Apart:
    """How much was stored apart, in bytes."""

    size_bytes: int = 0


class StoreWriter:
    """An `ObjectWriter`: appends to a pack of its own. Thread-safe.

    Concurrency: `_lock` guards all state and every append; hashing and compressing happen outside
    of it, so threads overlap there. Several writers, in one or in many processes, never write to
    the same file.

    Errors surface where they happen. After one, the pack is given up at its last good point and
    what is lost with it will be stored again when it is put again. If a `put` that had succeeded
    is among the lost, the next `flush` or `sync` of each thread says so, once.

    References: from a `put` until the entry that refers to the object is in a journal, gc must know
    that the object is needed. Wrap that span in `commit`; without it, everything this writer ever
    put or found counts as needed until it closes.
    """

    def __init__(self, store: Store, pack_bytes: int = PACK_BYTES) -> None:
        self.id = os.urandom(layout.WRITER_CHARS // 2).hex()
        self._store = store
        self._catalog = store.index.catalog
        self._home = store.home
        self._lock = threading.RLock()
        self._local = threading.local()
        self._apart_bytes = 0
        self._closed = False
        try:
            held = locks.create(lock_path(self._home, self.id), f"-{os.getpid()}\n".encode())
        except OSError as error:
            raise unavailable(error, self._home / layout.WRITERS, "registering a writer") from error
        self._held = held
        self.references = References(self._home, self.id, held)
        self._losses = Losses(self._home)
        self._packs = OwnPacks(
            self._home,
            self.id,
            self._catalog,
            self._losses,
            lock=self._lock,
            rolled=self.references.sealed,
            pack_bytes=pack_bytes,
        )
        _registered()

    @property
    def bytes_stored(self) -> int:
        """How much was appended to packs so far, frames included, but for what was put `apart`."""
        return self._packs.bytes_stored - self._apart_bytes

    @contextlib.contextmanager
    def apart(self) -> Iterator[Apart]:
        """Count what this thread stores inside for itself: others store beside it."""
        mine = Apart()
        self._local.apart = mine
        try:
            yield mine
        finally:
            self._local.apart = None

    def _note_apart(self, size_bytes: int) -> None:
        mine = self._local.__dict__.get("apart")
        if mine is not None:
            mine.size_bytes += size_bytes
            self._apart_bytes += size_bytes

    @property
    def losses(self) -> int:
        """How often something that was put has been lost: who remembers ids asks for it again."""
        return self._losses.count

    # -- reading ---------------------------------------------------------------------------------

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """As `Store.get`; sees what this writer put at once."""
        return self._store.get(object_id, kind)

    def contains(self, object_id: ObjectId) -> bool:
        """As `Store.contains`; sees what this writer put at once."""
        return self._store.contains(object_id)

    def own(self, object_id: ObjectId) -> Location | None:
        """Where this writer put the object, if the catalog may not know it yet."""
        return self._packs.places.get(object_id)

    def open_packs(self) -> list[str]:
        """The packs that this writer has open."""
        with self._lock:
            return self._packs.names()

    def read_own(self, at: Location) -> bytes | None:
        """A record out of a pack that this writer has open, perhaps still buffered."""
        if not at.pack.startswith(self.id):
            return None
        with self._lock:
            return self._packs.read(at)

    # -- writing ---------------------------------------------------------------------------------

    def put(self, data: Buffer, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        """Store `data` unless a durable copy of it is there; its id.

        Raises:
            StoreUnavailable: it cannot be written. What else was put and is not durable may be
                lost with it; the next `sync` says so.
            UsageError: longer than an object may be; or a forked child, or a closed writer.
        """
        object_id = compute_id(data, kind)
        self.put_many({object_id: (data, kind)})
        return object_id

    def put_many(self, objects: Mapping[ObjectId, tuple[Buffer, ObjectKind]]) -> None:
        """Store what is not there of `objects`, by id; errors as for `put`."""
        records = []
        unknown = self._unknown(objects)
        together_bytes = None  # one alone may be a piece of something long
        if len(objects) > 1:
            together_bytes = sum(len(objects[object_id][0]) for object_id in unknown)
        for object_id in unknown:
            data, kind = objects[object_id]
            if len(data) > compression.OBJECT_MAX:
                raise UsageError(
                    f"{len(data)} bytes are too long for one object", hint="use put_bytes"
                )
            codec, payload = compression.compress(data, kind, together_bytes=together_bytes)
            header = frames.header(object_id, kind, codec, len(data), payload)
            records.append(Record(object_id, kind, len(data), header, payload))
        with self._lock:
            self._check()
            places, condemned = self._packs.places, self.references.condemned
            before = self._packs.bytes_stored
            self._packs.append(
                record
                for record in records
                if record.id not in places or condemned(places[record.id].pack)
            )
            self._note_apart(self._packs.bytes_stored - before)

    def put_again(self, object_ids: Collection[ObjectId]) -> bool:
        """Put objects that were put before, without their bytes, if all of them are still there.

        Between two `commit` spans gc may have taken them.

        Returns:
            Whether they count as put now.

        Raises:
            StoreUnavailable: the store cannot be read.
            UsageError: a forked child, or a closed writer.
        """
        return not self._unknown(object_ids)

    def copy(self, object_id: ObjectId, at: Location) -> None:
        """Append a verified copy of a record that lies elsewhere, even though it is there.

        Raises:
            DamagedObject: what is there is not this object.
            StoreUnavailable: it cannot be read or written.
        """
        self._store.read_at(object_id, ObjectKind(at.kind), at)
        record = self._store.read_record(at)
        head, payload = record[: frames.HEADER_BYTES], record[frames.HEADER_BYTES :]
        with self._lock:
            self._check()
            self._losses.listen()
            self._packs.append([Record(object_id, at.kind, at.raw, head, payload)])

    def _unknown(self, object_ids: Collection[ObjectId]) -> list[ObjectId]:
        """Those of which no copy exists yet; of the others it is recorded that they are needed."""
        self._check()
        if not self.references.loose and not self._local.__dict__.get("spans"):
            with self._lock:
                self._answer(self.references.activate())
        own = self._packs.places
        there = self._catalog.locate_all([i for i in object_ids if i not in own])
        # Under the lock: a `sync` in another thread must not answer a list in between, and what a
        # failing `put` of another thread takes with it is found until it has failed.
        with self._lock:
            self._losses.listen()
            return [
                i
                for i in object_ids
                if (i not in own and i not in there) or not self._relied_on(i, there.get(i, ()))
            ]

    def _relied_on(self, object_id: ObjectId, places: Iterable[Location]) -> bool:
        own = self._packs.places.get(object_id)
        if own is not None:
            if own.pack == self._packs.open_name:
                return True
            places = (own, *places)
        for place in places:
            if self.references.usable(place.pack):
                self.references.found(object_id, place.pack)
                return True
        return False

    def flush(self) -> None:
        """Hand everything put so far to the operating system: it survives SIGKILL.

        Raises:
            StoreUnavailable: it cannot be written, or something put before was lost.
        """
        with self._lock:
            self._check()
            self._packs.write_out()
            self._losses.raise_untold()

    def sync(self) -> None:
        """Make everything put so far durable: one fdatasync for each pack written since.

        Raises:
            StoreUnavailable: it is not, or something put before was lost. What was not durable is
                given up: nothing the disk failed to confirm is relied on.
        """
        with self._packs.syncing:
            with self._lock:
                self._check()
                answers = self._protect()
                self._packs.write_out()
            self._packs.sync()
            with self._lock:
                if self._packs.fresh >= _FRESH_MAX:
                    self._packs.catalogue()
                self._answer(answers)
                self._losses.raise_untold()

    def catalogue(self) -> None:
        """Move durable rows to the catalog, for others to find, if many have come together.

        Takes milliseconds, and nothing depends on it: for when nobody waits.
        """
        with self._lock:
            self._check()
            if self._packs.fresh >= _PUSH_ROWS:
                self._packs.catalogue()

    # -- references and gc -----------------------------------------------------------------------

    @contextlib.contextmanager
    def commit(self) -> Iterator[Self]:
        """The span from a first `put` to the journal entry that refers to what was put.

        gc keeps what is put, or found, inside until the span ends; the journal is its witness
        afterwards. Spans may nest, and overlap with those of other threads. A `put` in a thread
        that is in no span counts as needed until `close`: that is safe, and keeps gc from much.
        Between spans the writer is idle, and gc does not wait for it.
        """
        mine = self._local.__dict__
        with self._lock:
            self._check()
            self._answer(self.references.begin())
        mine["spans"] = mine.get("spans", 0) + 1
        try:
            yield self
        finally:
            mine["spans"] -= 1
            with self._lock:
                self.references.end()

    def start_over(self) -> None:
        """This thread relies on nothing that was put until now, and need not hear of its loss."""
        with self._lock:
            self._losses.start_over()

    def hold(self) -> Callable[[], None]:
        """Keep the span that is going on open beyond its end, for whoever commits what it put.

        Returns:
            What ends it; to be called once, from any thread.
        """
        with self._lock:
            self._answer(self.references.begin())

        def release() -> None:
            with self._lock:
                self.references.end()

        return release

    def _protect(self) -> list[int]:
        """Store again whatever only condemned packs hold; the lists to answer after the sync."""
        numbers = self.references.read_lists()
        if numbers:
            for object_id in self.references.threatened():
                self._rescue(object_id)
        return numbers

    def _rescue(self, object_id: ObjectId) -> None:
        at = self._packs.places.get(object_id)
        if at is not None and not self.references.condemned(at.pack):
            return
        places = self._catalog.locate(object_id)
        if any(self.references.usable(place.pack) for place in places):
            return
        for place in (*places, *([at] if at is not None else [])):
            with contextlib.suppress(DamagedObject):
                self.copy(object_id, place)
                return
        self.references.lost(object_id)
        self._losses.add([object_id])

    def _answer(self, numbers: list[int]) -> None:
        for number in numbers:
            # An answer that cannot be written makes gc wait, no more.
            with contextlib.suppress(OSError):
                self.references.answer(number)

    # -- the end ---------------------------------------------------------------------------------

    def _check(self) -> None:
        self._store.check_process()
        if self._closed:
            raise UsageError("the writer is closed", where=str(self._home))

    def close(self) -> None:
        """Seal, sync and catalogue everything, and unregister. Closing twice is no error.

        Raises:
            StoreUnavailable: something put is not durable.
        """
        if self._closed or not self._held.ours:
            return
        try:
            with self._lock:
                self._packs.roll()
            self.sync()
            _closing()
        finally:
            with self._packs.syncing, self._lock:
                self._closed = True
                self._packs.close()
                self._store.forget_writer(self)
                self._held.release(remove=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
