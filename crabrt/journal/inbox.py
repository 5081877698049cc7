"""What others tell a run: labels, pins, thinned turns. Files put once, needing no lease.

``inbox/<n>.msg`` is one framed `core.envelopes.Entry` of seq n. The number is taken by a hard link,
so two writers never share one, and a message has all its bytes, durable, before it has its name.
Readers merge the messages behind the journal's own: what a person says counts for more than what
the loop said. Messages are never changed; a later one takes back an earlier one.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import xxhash

from crabrt.core.clock import SystemClock, boot_id
from crabrt.core.entries import Body, Labelled, Pinned, Thinned, Unlabelled
from crabrt.core.envelopes import body_of, decode_entry, encode_entry
from crabrt.core.failpoints import declare
from crabrt.core.ids import valid_name
from crabrt.errors import DamagedJournal, FormatTooNew, NotFound, UsageError
from crabrt.journal.layout import DIRECTORY_MODE, DISK, inbox_dir, unavailable

_WRITTEN = declare("inbox.written", "the message is durable under a temporary name: not yet said")
_NAMED = declare("inbox.named", "the message has its number; the name may not survive a power cut")

_MAGIC = b"CRABMAIL"
_HEAD = struct.Struct("<8sQ")
_NAME = re.compile(r"(\d{8,19})\.msg")
_MAX_BYTES = 16 << 20


class Message(msgspec.Struct, frozen=True):
    """One message: its number, what it says (None: an unknown kind that may be skipped), when."""

    number: int
    body: Body | None
    turn: int
    wall_ns: int


class ThinnedRange(msgspec.Struct, frozen=True, array_like=True):
    """Turns `first` to `last` gave up their files at `wall_ns`, because of `reason`."""

    first: int
    last: int
    wall_ns: int
    reason: str


class Marks(msgspec.Struct, frozen=True):
    """What an inbox comes to.

    Attributes:
        labels: label to (turn, inner); None: the label was taken away.
        pins: turn to whether it is pinned.
        thinned: ranges of turns without files.
    """

    labels: dict[str, tuple[int, int] | None] = {}
    pins: dict[int, bool] = {}
    thinned: tuple[ThinnedRange, ...] = ()

    def thinned_ranges(self) -> list[tuple[int, int]]:
        """The thinned turns as ranges (first, last) in order, none touching the next."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted((r.first, r.last) for r in self.thinned):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged

    def merged_labels(self, labels: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """The journal's `labels` with these over them."""
        both: dict[str, tuple[int, int] | None] = {**labels, **self.labels}
        return {label: at for label, at in both.items() if at is not None}


def label_turn(directory: Path, label: str, turn: int, inner: int = 0) -> None:
    """Name a turn (or the point ``turn.inner``); the label moves there if it was elsewhere.

    Raises:
        UsageError: the label is malformed.
        NotFound, StoreUnavailable: as `put`.
    """
    if not valid_name(label):
        raise UsageError(f"{label!r} is no label", hint="[A-Za-z0-9._-]+, no number, not 'last'")
    put(directory, Labelled(turn, label, inner), turn=turn)


def unlabel(directory: Path, label: str) -> None:
    """Take a label away.

    Raises:
        NotFound, StoreUnavailable: as `put`.
    """
    put(directory, Unlabelled(label), turn=0)


def pin_turn(directory: Path, turn: int, *, pinned: bool = True) -> None:
    """Keep a turn from retention, or no longer.

    Raises:
        NotFound, StoreUnavailable: as `put`.
    """
    put(directory, Pinned(turn, pinned), turn=turn)


def put(directory: Path, body: Body, *, turn: int) -> int:
    """Leave a message for the run in `directory`; its number. Durable on return.

    Raises:
        NotFound: there is no such run.
        StoreUnavailable: it cannot be written.
    """
    if not directory.is_dir():
        raise NotFound("there is no such run", where=directory.name)
    folder = inbox_dir(directory)
    temporary = folder / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
    try:
        os.makedirs(folder, DIRECTORY_MODE, exist_ok=True)
        fd = DISK.create(temporary)
        try:
            number = max(_numbers(folder), default=0) + 1
            while not _put_as(fd, folder, temporary, number, _encode(body, number, turn)):
                number += 1
        finally:
            os.close(fd)
            os.unlink(temporary)
        _NAMED()
        DISK.sync_directory(folder)
        DISK.sync_directory(directory)
    except OSError as error:
        raise unavailable(error, "leave a message for the run", folder) from error
    return number


def read_inbox(directory: Path) -> Iterator[Message]:
    """The messages for the run in `directory`, in order.

    Raises:
        DamagedJournal: a message is not what was written; `where` names it.
        FormatTooNew: a message needs a newer crabrt.
        StoreUnavailable: it cannot be read.
    """
    folder = inbox_dir(directory)
    for number in inbox_numbers(directory):
        path = folder / _name(number)
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise unavailable(error, "read a message", path) from error
        yield _decode(data, number, path)


def inbox_numbers(directory: Path) -> list[int]:
    """The numbers of the messages, ascending: a cheap way to see whether there are new ones.

    Raises:
        StoreUnavailable: the inbox cannot be read.
    """
    folder = inbox_dir(directory)
    try:
        return sorted(_numbers(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unavailable(error, "list the inbox", folder) from error


def read_marks(directory: Path) -> Marks:
    """What the inbox of the run in `directory` comes to.

    Raises:
        DamagedJournal, FormatTooNew, StoreUnavailable: as `read_inbox`.
    """
    labels: dict[str, tuple[int, int] | None] = {}
    pins: dict[int, bool] = {}
    thinned: list[ThinnedRange] = []
    for message in read_inbox(directory):
        match message.body:
            case Labelled(turn=turn, label=label, inner=inner):
                labels[label] = (turn, inner)
            case Unlabelled(label=label):
                labels[label] = None
            case Pinned(turn=turn, pinned=pinned):
                pins[turn] = pinned
            case Thinned(turns=turns, reason=reason):
                thinned += [ThinnedRange(a, b, message.wall_ns, reason) for a, b in turns]
            case _:
                continue
    return Marks(labels, pins, tuple(thinned))


def copy_marks(parent: Path, child: Path, *, upto: int) -> None:
    """Give a fork what its parent's inbox says about turns up to `upto`, but for the pins.

    Raises:
        DamagedJournal, FormatTooNew, NotFound, StoreUnavailable: as `read_inbox` and `put`.
    """
    marks = read_marks(parent)
    by_reason: dict[str, list[tuple[int, int]]] = {}
    for thinned in marks.thinned:
        if thinned.first <= upto:
            cut = (thinned.first, min(thinned.last, upto))
            by_reason.setdefault(thinned.reason, []).append(cut)
    for reason, ranges in by_reason.items():
        put(child, Thinned(tuple(ranges), reason), turn=upto)
    for label, at in marks.labels.items():
        if at is None:
            unlabel(child, label)
        elif at[0] <= upto:
            label_turn(child, label, *at)


def _put_as(fd: int, folder: Path, temporary: Path, number: int, data: bytes) -> bool:
    """Write the message under the temporary name and give it its number; False if that is taken."""
    DISK.truncate(fd, 0)
    DISK.write(fd, data, 0)
    DISK.sync(fd)
    _WRITTEN()
    try:
        os.link(temporary, folder / _name(number))
    except FileExistsError:
        return False
    return True


def _name(number: int) -> str:
    return f"{number:08d}.msg"


def _numbers(folder: Path) -> list[int]:
    matches = (_NAME.fullmatch(name) for name in os.listdir(folder))
    return [int(match[1]) for match in matches if match is not None]


def _encode(body: Body, number: int, turn: int) -> bytes:
    now = SystemClock().now()
    payload = encode_entry(
        body, seq=number, turn=turn, wall_ns=now.wall_ns, mono_ns=now.mono_ns, boot=boot_id()
    )
    return _HEAD.pack(_MAGIC, xxhash.xxh3_64_intdigest(payload, number)) + payload


def _decode(data: bytes, number: int, path: Path) -> Message:
    problem: Callable[[str], DamagedJournal] = lambda what: DamagedJournal(  # noqa: E731
        f"a message is damaged: {what}", where=str(path), hint="`crab repair` sets it aside"
    )
    if len(data) < _HEAD.size:
        raise problem("it is cut short")
    magic, checksum = _HEAD.unpack_from(data)
    payload = data[_HEAD.size :]
    if magic != _MAGIC or checksum != xxhash.xxh3_64_intdigest(payload, number):
        raise problem("its checksum does not match")
    try:
        entry = decode_entry(payload)
        body = body_of(entry)
    except KeyError as error:
        raise FormatTooNew(
            f"a message is of the unknown kind {error}", where=str(path), hint="upgrade crabrt"
        ) from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise problem(str(error)) from error
    return Message(number, body, entry.turn, entry.wall_ns)
