"""Turns that gave up their files, and what of the store a run still needs.

Thinning a turn drops its trees, never its conversation: a resume needs that. The `Thinned` message
in the run's inbox is durable before anything is dropped; a crash between the two leaves trees that
the next gc drops. A root that a thinned turn shares with one that is not stays.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from crabrt.core.content import Content
from crabrt.core.entries import (
    Body,
    Captured,
    Checkpoint,
    Ended,
    Failure,
    Intent,
    Payload,
    Recorded,
    Request,
    Response,
    Result,
    RolledBack,
    Started,
    Thinned,
)
from crabrt.core.ids import ID_BYTES, ObjectId, ObjectKind
from crabrt.errors import DamagedJournal
from crabrt.journal.inbox import Marks, put, read_marks
from crabrt.journal.reading import Record, read_journal

_RANGES_A_MESSAGE = 100_000


def thin_turns(directory: Path, turns: Iterable[int], *, reason: str = "retention") -> None:
    """Declare that `turns` gave up their files. Durable on return; does nothing for no turns.

    Raises:
        NotFound: there is no such run.
        StoreUnavailable: it cannot be written.
    """
    ranges: list[tuple[int, int]] = []
    for turn in sorted(set(turns)):
        if ranges and ranges[-1][1] == turn - 1:
            ranges[-1] = (ranges[-1][0], turn)
        else:
            ranges.append((turn, turn))
    for start in range(0, len(ranges), _RANGES_A_MESSAGE):
        part = tuple(ranges[start : start + _RANGES_A_MESSAGE])
        put(directory, Thinned(part, reason), turn=part[-1][1])


def references(
    directory: Path, *, thinned: bool = False, marks: Marks | None = None
) -> Iterator[tuple[ObjectId, ObjectKind]]:
    """What the run's entries refer to in the store: roots, and the topmost ids of long values.

    Ids may come more than once. Roots are those of checkpoints (inner ones too), of captures, and
    of rollbacks.

    Args:
        directory: the run's directory.
        thinned: also the roots of thinned turns.
        marks: instead of reading the inbox.

    Raises:
        NotFound, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`; what is
            needed is unknown then, and nothing may be dropped.
    """
    kept = kept_turns(read_marks(directory) if marks is None else marks, thinned=thinned)
    for record in read_journal(directory):
        yield from named_by(record, kept)


def kept_turns(marks: Marks, *, thinned: bool = False) -> Callable[[int], bool]:
    """Whether a turn's roots are still wanted; with `thinned` all are."""
    ranges = [] if thinned else marks.thinned_ranges()
    firsts = [first for first, _ in ranges]

    def kept(turn: int) -> bool:
        at = bisect.bisect_right(firsts, turn) - 1
        return at < 0 or ranges[at][1] < turn

    return kept


def named_by(record: Record, kept: Callable[[int], bool]) -> Iterator[tuple[ObjectId, ObjectKind]]:
    """What one entry refers to; roots only of turns that are `kept`.

    Raises:
        DamagedJournal: an id is malformed.
    """
    body, where = record.body, f"{record.segment}:{record.offset}"
    if isinstance(body, Captured | Checkpoint | RolledBack):
        if kept(body.to if isinstance(body, RolledBack) else body.turn):
            yield _checked(body.root, where), ObjectKind.ROOT
            if isinstance(body, Checkpoint) and body.processes:
                yield _checked(body.processes, where), ObjectKind.ROOT
    elif body is not None:
        for content in _contents(body):
            kind = ObjectKind.LIST if content.level else ObjectKind.DATA
            for item in content.ids:
                yield _checked(item, where), kind


def _checked(item: bytes, where: str) -> ObjectId:
    if len(item) != ID_BYTES:
        raise DamagedJournal("an entry refers to a malformed id", where=where)
    return ObjectId(item)


def _contents(body: Body) -> Iterator[Content]:
    """The long values that an entry names."""
    payloads: tuple[Payload, ...] = ()
    failure: Failure | None = None
    match body:
        case Started(arguments=payload) | Intent(arguments=payload) | Recorded(value=payload):
            payloads = (payload,)
        case Request(arguments=payload, messages=messages):
            payloads = (payload,)
            if messages is not None:
                yield messages
        case (
            Response(result=payload, failure=failure)
            | Result(result=payload, failure=failure)
            | Ended(result=payload, failure=failure)
        ):
            payloads = (payload,)
    if failure is not None:
        payloads = (*payloads, failure.state)
    for one in payloads:
        if one.content is not None:
            yield one.content
