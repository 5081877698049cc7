"""Which of the things that a journal names were ever promised to survive a power cut.

An entry survives SIGKILL as soon as it is appended, and so does what it names; both are durable
only later. A power cut may therefore leave an entry whose objects are gone, and nobody was promised
them. What was promised can be told from the journal: a `Checkpoint` is written when all that had
been stored until its capture is durable, and a run that ended and was closed is durable as a whole.
Either speaks for its own boot only: what an earlier one had lost was not brought back by it.

Without a power cut everything is promised, but for a state that was captured and then could not be
made durable: its turn was said to be unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crabrt.core.entries import Body, Captured, Checkpoint, Ended, Exposed
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.journal.inbox import read_marks
from crabrt.journal.reading import Record, is_sealed, read_journal
from crabrt.journal.retention import kept_turns, named_by

Reference = tuple[ObjectId, ObjectKind]


class _Unpromised:
    """What was named in each boot, and is not known to have become durable."""

    def __init__(self) -> None:
        self._named: dict[str, list[tuple[int, Reference]]] = {}
        self._captured: dict[tuple[str, int, int], int] = {}

    def add(self, record: Record, references: list[Reference]) -> None:
        """An entry and what it names."""
        body, boot = record.body, record.entry.boot
        if isinstance(body, Captured):
            self._captured[boot, body.turn, body.inner] = record.entry.seq
        named = self._named.setdefault(boot, [])
        named += [(record.entry.seq, reference) for reference in references]

    def checkpoint(self, record: Record, body: Checkpoint) -> list[Reference]:
        """What is known to be durable by a checkpoint."""
        captured = self._captured.pop((record.entry.boot, body.turn, body.inner), 0)
        return self.upto(max(captured, body.position), record.entry.boot)

    def upto(self, seq: int, boot: str) -> list[Reference]:
        """What entries up to `seq` named in that boot; it is promised from now on."""
        named = self._named.get(boot, [])
        self._named[boot] = [(at, reference) for at, reference in named if at > seq]
        return [reference for at, reference in named if at <= seq]

    def given_up(self, record: Record, body: Exposed) -> list[Reference]:
        """What was captured of a turn that could not be made durable."""
        boot = record.entry.boot
        places = [place for place in self._captured if place[:2] == (boot, body.turn)]
        lost = {self._captured.pop(place) for place in places}
        named = self._named.get(boot, [])
        self._named[boot] = [(at, reference) for at, reference in named if at not in lost]
        return [reference for at, reference in named if at in lost]

    def rest(self) -> list[Reference]:
        """What is left."""
        return [reference for named in self._named.values() for _, reference in named]


class _Captures:
    """What was captured in this boot, and is neither durable nor given up."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], list[Reference]] = {}

    def judge(
        self, body: Body | None, named: list[Reference]
    ) -> tuple[list[Reference], list[Reference]]:
        """By an entry that names `named`: what is promised, and what never will be."""
        match body:
            case Captured(turn=turn, inner=inner):
                self._held[turn, inner] = named
                return [], []
            case Checkpoint(turn=turn, inner=inner):
                return named + self._held.pop((turn, inner), []), []
            case Exposed(turn=turn):
                places = [place for place in self._held if place[0] == turn]
                return named, [lost for place in places for lost in self._held.pop(place)]
        return named, []

    def rest(self) -> list[Reference]:
        """What is left: it survives SIGKILL."""
        return [reference for named in self._held.values() for reference in named]


def promised_references(
    directory: Path, *, boot: str
) -> Iterator[tuple[ObjectId, ObjectKind, bool]]:
    """As `retention.references`, and for each whether it must be there.

    Args:
        directory: the run's directory.
        boot: the current one: since it began, no power was lost.

    Raises:
        NotFound, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    kept = kept_turns(read_marks(directory))
    captures, unpromised = _Captures(), _Unpromised()
    ends: list[Record] = []
    for record in read_journal(directory):
        named, body = list(named_by(record, kept)), record.body
        promised: list[Reference] = []
        lost: list[Reference] = []
        if record.entry.boot == boot:
            promised, lost = captures.judge(body, named)
        elif isinstance(body, Checkpoint):
            promised = named + unpromised.checkpoint(record, body)
        else:
            unpromised.add(record, named)
            if isinstance(body, Exposed):
                lost = unpromised.given_up(record, body)
        if isinstance(body, Ended):
            ends.append(record)
        yield from _judged(promised, must=True)
        yield from _judged(lost, must=False)
    yield from _judged(captures.rest(), must=True)
    for end in ends:
        if is_sealed(directory, end.position):
            yield from _judged(unpromised.upto(end.entry.seq, end.entry.boot), must=True)
    yield from _judged(unpromised.rest(), must=False)


def _judged(
    references: list[Reference], *, must: bool
) -> Iterator[tuple[ObjectId, ObjectKind, bool]]:
    return ((object_id, kind, must) for object_id, kind in references)
