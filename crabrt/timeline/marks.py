"""What stands between the turns: resumes, rollbacks, forks, ends; restores and undos of the files.

What happened to the run is told by its own journal (`TurnView.moves`), forks from here by the runs
that are forks, and what people did to its directory by the directory's log of restores.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from crabrt.journal.lookup import RunRow
from crabrt.journal.restores import Begin, End
from crabrt.journal.restores import Record as RestoreRecord
from crabrt.journal.views import ENDING, FORKED, RESUMED, ROLLED_BACK, MoveView, RunView
from crabrt.timeline.rows import Row
from crabrt.timeline.signs import Sign, Tone
from crabrt.timeline.table import Rows


class MarkKind(StrEnum):
    """What happened."""

    RESUMED = "resumed"
    ROLLED_BACK = "rolled back"
    BEGAN = "began here"  # this run is a fork: what is before it is its parent's history
    FORK = "fork"
    CHILD = "child"
    RESTORED = "restored"
    RESTORING = "restore cut off"
    UNDONE = "undone"
    ENDED = "ended"


_SIGNS = {
    MarkKind.RESUMED: Sign("▷", "resumed", Tone.NEWS),
    MarkKind.ROLLED_BACK: Sign("↶", "rolled back", Tone.WARNING),
    MarkKind.BEGAN: Sign("⑂", "forked here", Tone.NEWS),
    MarkKind.FORK: Sign("⑂", "fork", Tone.NEWS),
    MarkKind.CHILD: Sign("⤷", "child run", Tone.NEWS),
    MarkKind.RESTORED: Sign("↺", "files restored", Tone.WARNING),
    MarkKind.RESTORING: Sign("↺", "a restore was cut off", Tone.BAD),
    MarkKind.UNDONE: Sign("↻", "restore undone", Tone.WARNING),
    MarkKind.ENDED: Sign("■", "ended"),
}
_MOVES = {
    RESUMED: MarkKind.RESUMED,
    ROLLED_BACK: MarkKind.ROLLED_BACK,
    FORKED: MarkKind.BEGAN,
    ENDING: MarkKind.ENDED,
}
_UNDO = "undo"
_RESTORES = "restore "
_RESTORE = re.compile(r"restore ([A-Za-z0-9._-]{1,128})@(\d{1,9})(?:\.\d+)?")
_OF_LOOPS = ("rollback of ", "resume ")
_LOOPS_OWN = ": written by the loop itself"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened between two turns.

    Attributes:
        kind: what.
        after: the turn that was the latest one then.
        wall_ns: when.
        to: the turn whose state came back, or that a fork was made from; None where there is none.
        run: another run that it is about: the fork, the child, the parent; or None.
        text: more of it, for people: the mode of a resume, the status of an end, what was restored.
    """

    kind: MarkKind
    after: int
    wall_ns: int
    to: int | None = None
    run: str | None = None
    text: str = ""

    @property
    def sign(self) -> Sign:
        """Its shape, word and tone; an end that failed is a bad one."""
        if self.kind is MarkKind.ENDED and self.text == "failed":
            return Sign("■", "failed", Tone.BAD)
        return _SIGNS[self.kind]

    @property
    def about(self) -> str:
        """What stands beside its sign: which turn, which run, how. Raw text; it may be empty."""
        if self.kind is MarkKind.RESTORED and self.text:
            return self.text.removeprefix(_RESTORES)  # its sign says that it restored
        if self.kind is MarkKind.ROLLED_BACK and self.to is not None:
            return f"to {self.to}"
        if self.run is not None:
            return self.run + ("" if self.to is None else f"@{self.to}")
        told = self.kind in {MarkKind.RESUMED, MarkKind.ENDED} and self.text != self.sign.word
        return self.text if told else ""


def marks_of_moves(turn: int, moves: Iterable[MoveView]) -> list[Mark]:
    """What the run's own journal tells, of one turn."""
    found = []
    for move in moves:
        kind = _MOVES.get(move.kind)
        if kind is MarkKind.BEGAN:
            found.append(Mark(kind, turn, move.wall_ns, move.to, move.how or None))
        elif kind is not None:
            found.append(Mark(kind, turn, move.wall_ns, move.to, text=move.how))
    return found


def marks_of_relatives(run: str, rows: Iterable[RunRow]) -> list[Mark]:
    """The forks made from `run`, and the runs that are its children."""
    found = []
    for row in rows:
        if row.parent != run or row.run == run:
            continue
        at = row.view.forked_at
        if at is not None:
            found.append(Mark(MarkKind.FORK, at, row.started_ns, at, row.run))
        elif row.view.lineage.call is not None:
            found.append(Mark(MarkKind.CHILD, -1, row.started_ns, None, row.run))
    return found


def marks_of_restores(records: Sequence[RestoreRecord]) -> list[Mark]:
    """What people did to the directory; what loops did to it is told by their journals.

    The turns are not known here: `after` is -1, see `placed`.
    """
    begun: dict[str, Begin] = {}
    found = []
    for record in records:
        if isinstance(record, Begin):
            begun[record.id] = record
        elif isinstance(record, End) and record.changed and record.id in begun:
            label = begun[record.id].label
            if not (label.startswith(_OF_LOOPS) or label.endswith(_LOOPS_OWN)):
                kind = MarkKind.UNDONE if label == _UNDO else MarkKind.RESTORED
                run, to = _state_named(label)
                found.append(Mark(kind, -1, record.wall_ns, to, run, label))
    last = records[-1] if records else None
    if isinstance(last, Begin):
        run, to = _state_named(last.label)
        found.append(Mark(MarkKind.RESTORING, -1, last.wall_ns, to, run, last.label))
    return found


def placed(marks: Iterable[Mark], rows: Rows) -> tuple[Mark, ...]:
    """`marks`, in order; those that are known by their time stand after the turn of that time.

    What happened before the run began is left out.
    """
    found = []
    for mark in marks:
        after = rows.number_at(mark.wall_ns) if mark.after < 0 else mark.after
        if after is not None:
            found.append(mark if after == mark.after else replace(mark, after=after))
    return tuple(sorted(found, key=lambda mark: (mark.after, mark.wall_ns)))


def among(rows: Iterable[Row], marks: Iterable[Mark]) -> Iterator[Row | Mark]:
    """Rows that follow each other, and behind each what happened before the next one.

    As `placed`, for rows that no memory has to hold at once. What happened before the first of them
    is left out.

    Args:
        rows: in order.
        marks: `marks_of_relatives` and `marks_of_restores`; what the run's own journal tells is in
            the rows.
    """
    known = sorted((mark for mark in marks if mark.after >= 0), key=lambda mark: -mark.after)
    timed = sorted((mark for mark in marks if mark.after < 0), key=lambda mark: -mark.wall_ns)
    before: Row | None = None
    for row in itertools.chain(rows, (None,)):
        found = []
        while known and (row is None or known[-1].after < row.number):
            found.append(known.pop())
        while timed and (row is None or timed[-1].wall_ns < row.view.started_ns):
            found.append(timed.pop())
        if before is not None:
            here = before.number
            found = [mark if mark.after >= 0 else replace(mark, after=here) for mark in found]
            found += marks_of_moves(here, before.view.moves)
            yield before
            yield from sorted(found, key=lambda mark: (mark.after, mark.wall_ns))
        before = row


def workspace_state(home: Path, view: RunView) -> Path | None:
    """Where the store `home` keeps what it knows of a run's workspace; None: its id is no name."""
    name = view.workspace_id
    plain = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return home / "workspaces" / name if plain else None


def _state_named(label: str) -> tuple[str | None, int | None]:
    """The run and the turn in the label of a restore, if it names them."""
    found = _RESTORE.fullmatch(label)
    return (found[1], int(found[2])) if found is not None else (None, None)
