"""Writing objects: dedupe, compress, append, sync, and the writer's half of the gc protocol."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from crabrt.core import failpoints
from crabrt.core.ids import Buffer, ObjectId, ObjectKind
from crabrt.core.ids import object_id as compute_id
from crabrt.errors import DamagedObject, StoreUnavailable, UsageError
from crabrt.store import compression, frames, layout, locks
from crabrt.store.failures import unavailable
from crabrt.store.index import lock_path
from crabrt.store.openpack import BUFFER_BYTES, OpenPack, Record
from crabrt.store.packs import HEADER_BYTES, Location
from crabrt.store.references import References

if TYPE_CHECKING:
    from crabrt.store.store import Store

PACK_BYTES = 64 << 20
"""A pack that reached this length is sealed."""
PACK_RECORDS = 65_536
"""So is one with as many records, which bounds every footer and what is kept in memory."""
_UNSYNCED_PACKS = 2
"""As many full packs may wait for a sync; then `put` syncs the oldest itself."""
_PUSH_ROWS = 256
"""As many rows are worth a transaction of the catalog's."""
_FRESH_MAX = 8192
"""With as many rows in memory, `sync` itself moves them to the catalog."""

_registered = failpoints.declare(
    "writer.registered", "a writer's lock is held, it has written nothing"
)
_rows = failpoints.declare("catalog.pushed", "durable records are in the catalog")
_closing = failpoints.declare(
    "writer.sealed", "a closing writer's packs are sealed and durable, its lock held"
)


class StoreWriter:
    """An `ObjectWriter`: appends to a pack of its own. Thread-safe.

    Concurrency: `_lock` guards all state and every append; hashing and compressing happen outside
    of it, so threads overlap there. `_sync_lock` (taken first) lets one thread at a time sync; puts
    go on while fdatasync runs, as nothing but the file is touched then. Several writers, in one or
    in many processes, never write to the same file.

    Errors surface where they happen. After one, the pack is given up at its last good point and
    what is lost with it will be stored again when it is put again. If a `put` that had succeeded
    is among the lost, the next `flush` or `sync` of each thread says so, once.

    References: from a `put` until the entry that refers to the object is in a journal, gc must know
    that the object is needed. Wrap that span in `commit`; without it, everything this writer ever
    put or found counts as needed until it closes.
    """

    def __init__(self, store: Store, pack_bytes: int = PACK_BYTES) -> None:
        self._pack_bytes = pack_bytes
        self.id = os.urandom(layout.WRITER_CHARS // 2).hex()
        self.bytes_stored = 0
        self._store = store
        self._catalog = store.index.catalog
        self._home = store.home
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._packs = 0
        self._open = self._next_pack()
        self._full: list[OpenPack] = []
        self._fresh: dict[ObjectId, Location] = {}
        self._lost: set[ObjectId] = set()
        self._losses = self._announced = 0
        self._local = threading.local()
        self._closed = False
        try:
            held = locks.create(lock_path(self._home, self.id), f"-{os.getpid()}\n".encode())
        except OSError as error:
            raise unavailable(error, self._home / layout.WRITERS, "registering a writer") from error
        self._held = held
        self.references = References(self._home, self.id, held)
        _registered()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, object_id: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        """As `Store.get`; sees what this writer put at once."""
        return self._store.get(object_id, kind)

    def contains(self, object_id: ObjectId) -> bool:
        """As `Store.contains`; sees what this writer put at once."""
        return self._store.contains(object_id)

    def own(self, object_id: ObjectId) -> Location | None:
        """Where this writer put the object, if the catalog may not know it yet."""
        return self._fresh.get(object_id)

    def open_packs(self) -> list[str]:
        """The packs that this writer has open."""
        with self._lock:
            return [pack.name for pack in (*self._full, self._open)]

    def read_own(self, at: Location) -> bytes | None:
        """A record out of a pack that this writer has open, perhaps still buffered."""
        if not at.pack.startswith(self.id):
            return None
        with self._lock:
            for pack in (self._open, *self._full):
                if pack.name == at.pack:
                    try:
                        return pack.read(at.offset, at.length)
                    except OSError as error:
                        raise unavailable(error, pack.path, "reading a pack") from error
        return None

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
        for object_id in self._unknown(objects):
            data, kind = objects[object_id]
            if len(data) > compression.OBJECT_MAX:
                raise UsageError(
                    f"{len(data)} bytes are too long for one object", hint="use put_bytes"
                )
            codec, payload = compression.compress(data, kind)
            header = frames.header(object_id, kind, codec, len(data), payload)
            records.append(Record(object_id, kind, len(data), header, payload))
        with self._lock:
            fresh, condemned = self._fresh, self.references.condemned
            self._append(
                record
                for record in records
                if (at := fresh.get(record.id)) is None or condemned(at.pack)
            )

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
            self._append([Record(object_id, at.kind, at.raw, head, payload)])

    def _unknown(self, object_ids: Collection[ObjectId]) -> list[ObjectId]:
        """Those of which no copy exists yet; of the others it is recorded that they are needed."""
        self._check()
        references, fresh = self.references, self._fresh
        if not references.loose and not self._local.__dict__.get("spans"):
            with self._lock:
                self._answer(references.activate())
        here = self._open.name
        places: dict[ObjectId, list[Location]] = {}
        for object_id in object_ids:
            at = fresh.get(object_id)
            if at is None or at.pack != here:
                places[object_id] = [] if at is None else [at]
        places.update(self._catalog.locate_all([i for i, known in places.items() if not known]))
        # Under the lock, as a `sync` in another thread must not answer a list in between.
        with self._lock:
            return [i for i, known in places.items() if not self._relied_on(i, known)]

    def _relied_on(self, object_id: ObjectId, places: list[Location]) -> bool:
        for place in places:
            if self.references.usable(place.pack):
                self.references.found(object_id, place.pack)
                return True
        return False

    def _append(self, records: Iterable[Record]) -> None:
        """Append to the open pack. What fails is lost, with what was before it and unwritten."""
        self._check()
        self._local.__dict__.setdefault("told", self._losses)
        for record in records:
            pack = self._open
            try:
                at = self._fresh[record.id] = pack.append(record)
                if pack.buffered >= BUFFER_BYTES:
                    pack.write_out()
                if pack.end >= self._pack_bytes or pack.records >= PACK_RECORDS:
                    self._roll()
            except OSError as error:
                self._give_up(self._open, self._open.written_to)
                self._lost.discard(record.id)
                raise unavailable(error, pack.path, "storing an object") from error
            self.bytes_stored += at.length
            if self._lost:
                self._lost.discard(record.id)

    def _roll(self) -> None:
        """Start another pack. The full one is sealed once it is durable; few may wait for that."""
        self._open.write_out()
        self.references.sealed(self._open.name)
        self._full.append(self._open)
        self._open = self._next_pack()
        if len(self._full) > _UNSYNCED_PACKS:
            self._relieve()

    def _next_pack(self) -> OpenPack:
        self._packs += 1
        return OpenPack(self._home, f"{self.id}{self._packs:08x}")

    def flush(self) -> None:
        """Hand everything put so far to the operating system: it survives SIGKILL.

        Raises:
            StoreUnavailable: it cannot be written, or something put before was lost.
        """
        with self._lock:
            self._check()
            self._write_out()
            self._raise_if_lost()

    def _write_out(self) -> None:
        for pack in (*self._full, self._open):
            try:
                pack.write_out()
            except OSError as error:
                self._give_up(pack, pack.written_to)
                self._tell()
                raise unavailable(error, pack.path, "storing objects") from error

    def sync(self) -> None:
        """Make everything put so far durable: one fdatasync for each pack written since.

        Raises:
            StoreUnavailable: it is not, or something put before was lost. What was not durable is
                given up: nothing the disk failed to confirm is relied on.
        """
        with self._sync_lock:
            with self._lock:
                self._check()
                answers = self._protect()
                self._write_out()
                dirty = [
                    (pack, pack.written_to) for pack in (*self._full, self._open) if pack.dirty
                ]
            for pack, length in dirty:
                self._sync_to(pack, length)
            self._retire()
            with self._lock:
                if len(self._fresh) >= _FRESH_MAX:
                    self._push(self._open)
                self._answer(answers)
                self._raise_if_lost()

    def catalogue(self) -> None:
        """Move durable rows to the catalog, for others to find, if many have come together.

        Takes milliseconds, and nothing depends on it: for when nobody waits.
        """
        with self._lock:
            self._check()
            if len(self._fresh) >= _PUSH_ROWS:
                self._push(self._open)

    def _sync_to(self, pack: OpenPack, length: int) -> None:
        """Make a pack durable up to `length`, or give up what was not."""
        try:
            pack.sync()
        except OSError as error:
            with self._lock:
                self._give_up(pack, pack.durable_to)
                self._tell()
            raise unavailable(error, pack.path, "making objects durable") from error
        with self._lock:
            pack.durable_to = max(pack.durable_to, length)

    def _relieve(self) -> None:
        """Sync the oldest full pack, unless a thread is at it."""
        if self._sync_lock.acquire(blocking=False):
            try:
                oldest = self._waiting_longest()
                if oldest is not None:
                    self._sync_to(oldest, oldest.written_to)
                self._retire()
            finally:
                self._sync_lock.release()

    def _waiting_longest(self) -> OpenPack | None:
        return next((pack for pack in self._full if pack.dirty), None)

    def _retire(self) -> None:
        """Seal, catalogue and close the packs that are full and durable. `_sync_lock` is held."""
        with self._lock:
            durable = [pack for pack in self._full if not pack.dirty]
        for pack in durable:
            # What is durable is so without a footer; who adopts the pack will write one.
            with contextlib.suppress(OSError):
                pack.seal()
            with self._lock:
                if pack.records:
                    self._push(pack)
                self._full.remove(pack)
                pack.close()

    def _push(self, pack: OpenPack) -> None:
        """Move a pack's durable rows from memory to the catalog."""
        items = pack.take_durable()
        end = min(pack.durable_to, pack.end)
        added = self._catalog.add(pack.name, pack.catalogued_to, end, items, sealed=pack.sealed)
        if added is False:
            known = [item for item in pack.items() if item.at.offset < end]
            self._catalog.add(pack.name, 0, end, known, sealed=pack.sealed)
        pack.catalogued_to = end
        for item in items:
            if self._fresh.get(item.id) is item.at:
                del self._fresh[item.id]
        _rows()

    # -- losses ----------------------------------------------------------------------------------

    @property
    def losses(self) -> int:
        """How often something that was put has been lost: who remembers ids asks for it again."""
        return self._losses

    def _give_up(self, pack: OpenPack, length: int) -> None:
        """Abandon a pack at `length`; what was beyond is forgotten, so that it is stored again."""
        lost = pack.cut(length)
        for item in lost:
            if self._fresh.get(item.id) is item.at:
                del self._fresh[item.id]
                self._lost.add(item.id)
        if lost:
            self._losses += 1
        if pack is self._open:
            self._open = self._next_pack()
            if pack.written_to > HEADER_BYTES:
                self._full.append(pack)
            else:
                pack.close()

    def _tell(self) -> None:
        """The error about to be raised tells this thread of every loss so far."""
        self._local.told = self._announced = self._losses

    def _raise_if_lost(self) -> None:
        told = getattr(self._local, "told", self._announced)
        if not self._lost:
            self._tell()
        elif min(told, self._announced) < self._losses:
            self._tell()
            raise StoreUnavailable(
                f"{len(self._lost)} objects put before were lost by a failed write",
                where=str(self._home),
                hint="free some space; they are stored again when they are put again",
            )

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

    def _protect(self) -> list[int]:
        """Store again whatever only condemned packs hold; the lists to answer after the sync."""
        numbers = self.references.read_lists()
        if numbers:
            for object_id in self.references.threatened():
                self._rescue(object_id)
        return numbers

    def _rescue(self, object_id: ObjectId) -> None:
        at = self._fresh.get(object_id)
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
        self._lost.add(object_id)
        self._losses += 1

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
                if self._open.records:
                    self._full.append(self._open)
                    self._open = self._next_pack()
            self.sync()
            _closing()
        finally:
            with self._sync_lock, self._lock:
                self._closed = True
                for pack in (*self._full, self._open):
                    pack.close()
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
