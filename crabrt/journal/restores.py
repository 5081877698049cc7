"""The small journal of a workspace's restores: what makes them crash-safe and undoable.

The file ``restores`` in the workspace's state directory is append-only: a magic, then frames of
``<u32 length> <u32 its complement> <u64 xxh3-64 of the payload> <payload>`` (little-endian; the
payload is msgpack).
`Begin` is durable before a restore touches anything, `End` after all it did is. A `Begin` without
an `End` is an interrupted restore. Every frame is synced before the next is written, so only the
last one can be torn: it is cut. A bad frame with others behind it is damage.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import xxhash

from crabrt.core.clock import boot_id
from crabrt.core.failpoints import declare
from crabrt.core.ids import ID_BYTES, ObjectId
from crabrt.errors import DamagedJournal, FormatTooNew, StoreUnavailable

MAGIC = b"crabrest"
VERSION = 1
_HEADER = MAGIC + struct.pack("<I", VERSION)
_FRAME = struct.Struct("<IIQ")
_MASK = 0xFFFF_FFFF
COMPACT_OVER_BYTES = 1 << 20

DAY_NS = 86_400 * 1_000_000_000

_appended = declare(
    "restore_log.appended", "a record is written to the log of restores, not synced"
)
_synced = declare("restore_log.synced", "a record is durable in the log of restores")


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """A restore is about to touch the workspace; both roots are durable.

    Attributes:
        id: 16 hex digits; part of the name of every temporary file of this restore.
        before, target: the roots it goes from and to.
        base: the state its owner last knew, or None.
        paths: the scope; empty: everything.
        label: what to show for it ("undo", "rollback to 9").
        wall_ns: when it began.
        boot: the boot it began in.
        alive_before, alive_target: the roots of what was alive and of what is to be, where
            processes are restored with the files.
        known: of an undo, what was known before the restore that it takes back, and is again; None:
            the target.
    """

    id: str
    before: ObjectId
    target: ObjectId
    base: ObjectId | None
    paths: tuple[bytes, ...]
    force: bool
    label: str
    wall_ns: int
    boot: str
    alive_before: ObjectId | None = None
    alive_target: ObjectId | None = None
    known: ObjectId | None = None

    @property
    def is_about_processes(self) -> bool:
        """Whether processes are restored with the files."""
        return self.alive_before is not None or self.alive_target is not None

    @property
    def roots(self) -> tuple[ObjectId, ...]:
        """All that it names."""
        files = (self.before, self.target, self.base, self.known)
        every = (*files, self.alive_before, self.alive_target)
        return tuple(root for root in every if root is not None)


class End(msgspec.Struct, frozen=True, tag="end"):
    """A restore is over, and what it wrote is durable.

    Attributes:
        id: of its `Begin`.
        root: the state it left.
        changed: False where it was given up before it touched anything.
        wall_ns: when it ended.
        known: the state from which somebody else's work differs, where that is not `root`: people
            may have changed what the restore left alone, or brought back.
    """

    id: str
    root: ObjectId
    changed: bool
    wall_ns: int
    known: ObjectId | None = None

    @property
    def base(self) -> ObjectId:
        """What is known once it is over."""
        return self.known or self.root

    @property
    def roots(self) -> tuple[ObjectId, ...]:
        """All that it names."""
        return (self.root,) if self.known is None else (self.root, self.known)


class Revived(msgspec.Struct, frozen=True, tag="revived"):
    """The processes of a restore have ended, or are back as far as they could be; after its `End`.

    Attributes:
        id: of its `Begin`.
        boot: in which the numbers are valid.
        processes: number of each that is back, and when it began, in clock ticks since boot.
        missing: a line for each tree that is not.
        wall_ns: when that was.
    """

    id: str
    boot: str
    processes: tuple[tuple[int, int], ...]
    missing: tuple[str, ...]
    wall_ns: int


Record = Begin | End | Revived
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class Unrevived(NamedTuple):
    """A restore whose files are done and whose processes are not.

    Attributes:
        begin: how it began.
        alive: the root of what is to be alive: what it goes to, or comes from if it was given up;
            None: nothing is.
        files: the root of the files that belong to that.
        is_given_up: whether it left the files as they were: who was to end perhaps never did.
    """

    begin: Begin
    alive: ObjectId | None
    files: ObjectId
    is_given_up: bool


class RestoreLog:
    """The restores of one workspace. Reading needs no lock; appending needs the restore lock."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "restores"

    def records(self) -> list[Record]:
        """Every record, oldest first; a torn last one is left out.

        Raises:
            DamagedJournal: it is broken in the middle.
            FormatTooNew: a newer crabrt wrote it.
            StoreUnavailable: it cannot be read.
        """
        return [record for record, _ in _parse(self._read(), str(self.path))]

    def interrupted(self) -> Begin | None:
        """The restore that began and has not ended, if there is one. Raises as `records`."""
        last = next(reversed(self.records()), None)
        return last if isinstance(last, Begin) else None

    def unrevived(self) -> Unrevived | None:
        """The last restore, if its files are done and its processes are not. Raises as `records`.

        None as well where it was not about processes.
        """
        end: End | None = None
        for record in reversed(self.records()):
            if isinstance(record, Revived):
                return None
            if isinstance(record, End):
                end = record
            elif end is None or not record.is_about_processes:
                return None
            elif end.changed:
                return Unrevived(record, record.alive_target, record.target, is_given_up=False)
            else:
                return Unrevived(record, record.alive_before, record.before, is_given_up=True)
        return None

    def last_revived(self) -> Revived | None:
        """What the last restore of processes brought back. Raises as `records`."""
        revived = (one for one in reversed(self.records()) if isinstance(one, Revived))
        return next(revived, None)

    def revived(self, boot: str) -> tuple[tuple[int, int], ...]:
        """All processes that restores brought back in `boot`. Raises as `records`."""
        back = [one for one in self.records() if isinstance(one, Revived) and one.boot == boot]
        return tuple(who for one in back for who in one.processes)

    def last_end(self) -> End | None:
        """The end of the last restore that changed something. Raises as `records`."""
        for record in reversed(self.records()):
            if isinstance(record, End) and record.changed:
                return record
        return None

    def last_end_root(self) -> tuple[ObjectId, int] | None:
        """The state the last restore left, and when (ns since the epoch). Raises as `records`."""
        end = self.last_end()
        return None if end is None else (end.root, end.wall_ns)

    def undo_point(self, max_age_days: float) -> tuple[Begin, End] | None:
        """The last restore that changed something, if it is young enough. Raises as `records`."""
        records = self.records()
        begun = {record.id: record for record in records if isinstance(record, Begin)}
        for record in reversed(records):
            if isinstance(record, End) and record.changed and record.id in begun:
                begin = begun[record.id]
                return (begin, record) if _young(begin.wall_ns, max_age_days) else None
        return None

    def undoable(self, max_age_days: float) -> Begin | None:
        """The restore that an undo takes back, if it is young enough. Raises as `records`.

        An interrupted one counts: it is finished first.
        """
        interrupted = self.interrupted()
        if interrupted is not None:
            return interrupted if _young(interrupted.wall_ns, max_age_days) else None
        point = self.undo_point(max_age_days)
        return None if point is None else point[0]

    def roots(self, max_age_days: float) -> tuple[ObjectId, ...]:
        """The roots a collection must keep. Raises as `records`.

        They are undo points, what an interrupted restore needs, the state the last one left, and
        what is known since.
        """
        records = self.records()
        keep: list[ObjectId] = []
        for record in records:
            if isinstance(record, Begin) and (
                _young(record.wall_ns, max_age_days) or record is records[-1]
            ):
                keep += record.roots
        last = self.last_end()
        return tuple(dict.fromkeys([*keep, *(last.roots if last is not None else ())]))

    def append(self, record: Record) -> None:
        """Add a record and make it durable.

        Raises:
            DamagedJournal: the log is broken; nothing was added.
            StoreUnavailable: it cannot be written or synced.
        """
        data = self._read()
        parsed = _parse(data, str(self.path))
        end = parsed[-1][1] if parsed else 0
        frame = _frame(record)
        with self._writing():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not end:
                    frame = _HEADER + frame
                if end < len(data):
                    os.ftruncate(fd, end)
                _write_all(fd, frame, end)
                _appended()
                os.fdatasync(fd)
            finally:
                os.close(fd)
            if not data:
                _sync_directory(self.path.parent)
        _synced()

    def compact(self, max_age_days: float) -> None:
        """Drop what is older than undo points are kept, if the log has grown long.

        Raises as `append`. A crash leaves the old log, or the new one.
        """
        data = self._read()
        if len(data) <= COMPACT_OVER_BYTES:
            return
        records = [record for record, _ in _parse(data, str(self.path))]
        fresh = {r.id for r in records if _young(r.wall_ns, max_age_days)} | {records[-1].id}
        shorter = _HEADER + b"".join(_frame(record) for record in records if record.id in fresh)
        if len(shorter) > len(data) // 2:
            return
        temp = self.path.with_name("restores.new")
        with self._writing():
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(fd, shorter, 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temp, self.path)
            _sync_directory(self.path.parent)

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StoreUnavailable(
                f"the log of restores cannot be read: {error.strerror}", where=str(self.path)
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"the log of restores cannot be written: {error.strerror}", where=str(self.path)
            ) from error


def begin(
    restore_id: str,
    before: ObjectId,
    target: ObjectId,
    *,
    base: ObjectId | None,
    paths: tuple[bytes, ...],
    force: bool,
    label: str,
    alive_before: ObjectId | None = None,
    alive_target: ObjectId | None = None,
    known: ObjectId | None = None,
) -> Begin:
    """A `Begin` of now."""
    return Begin(
        restore_id,
        before,
        target,
        base,
        paths,
        force,
        label,
        time.time_ns(),
        boot_id(),
        alive_before,
        alive_target,
        known,
    )


def _young(wall_ns: int, max_age_days: float) -> bool:
    return time.time_ns() - wall_ns <= max_age_days * DAY_NS


def _frame(record: Record) -> bytes:
    payload = _encode(record)
    size = len(payload)
    return _FRAME.pack(size, size ^ _MASK, xxhash.xxh3_64_intdigest(payload)) + payload


def _parse(data: bytes, where: str) -> list[tuple[Record, int]]:
    """The records of a log, each with the offset of its end."""
    if _HEADER.startswith(data.rstrip(b"\0")):
        return []  # torn while it was created
    if data[: len(MAGIC)] != MAGIC or len(data) < len(_HEADER):
        raise DamagedJournal("not a log of restores", where=where)
    version = int.from_bytes(data[len(MAGIC) : len(_HEADER)], "little")
    if version > VERSION:
        raise FormatTooNew(
            f"a log of restores of version {version}", where=where, hint="upgrade crabrt"
        )
    records: list[tuple[Record, int]] = []
    at = len(_HEADER)
    while at + _FRAME.size <= len(data):
        size, complement, checksum = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + size]
        end = at + _FRAME.size + len(payload)
        if size ^ complement != _MASK or size == 0:
            if any(data[at + _FRAME.size :]):
                raise DamagedJournal("a restore's record is broken", where=f"{where}:{at}")
            break
        if len(payload) < size or xxhash.xxh3_64_intdigest(payload) != checksum:
            if any(data[end:]):
                raise DamagedJournal("a restore's record is broken", where=f"{where}:{at}")
            break
        records.append((_decode(payload, f"{where}:{at}"), end))
        at = end
    return records


def _decode(payload: bytes, where: str) -> Record:
    try:
        record = _decoder.decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DamagedJournal(f"a restore's record is malformed: {error}", where=where) from error
    ids: tuple[ObjectId, ...] = ()
    if isinstance(record, End):
        ids = (record.root,)
    elif isinstance(record, Begin):
        ids = record.roots
    hexadecimal = set(record.id) <= set("0123456789abcdef") and len(record.id) == 16
    if any(len(i) != ID_BYTES for i in ids) or not hexadecimal:
        raise DamagedJournal("a restore's record has a malformed id", where=where)
    return record


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
