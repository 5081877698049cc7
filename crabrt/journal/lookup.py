"""What people mean by ``RUN`` and ``@TURN``, resolved against rows. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from crabrt.core.ids import ObjectId
from crabrt.core.targets import TurnRef
from crabrt.core.verdicts import Consistency, Protection
from crabrt.errors import Ambiguous, NotFound
from crabrt.journal.inbox import Marks, ThinnedRange
from crabrt.journal.rows import Problem
from crabrt.journal.views import RunView, TurnView

TurnRow = TurnView
"""A turn with its labels, pin and thinning filled in."""


class RunRow(msgspec.Struct, frozen=True):
    """One run, as listed.

    Attributes:
        run, name, workspace, workspace_id: which.
        status: ``running``, ``crashed``, ``done``, ``failed``, ``forked`` (never taken up) or
            ``damaged``.
        turns: number of its latest turn.
        started_ns, updated_ns: wall clock.
        parent, family: lineage; `family` is its own id where it has no ancestor.
        problem: what is damaged, in words, or None.
        damage: the same as an error to raise.
        labels: label to (turn, inner).
        view: the run in full.
        marks: what its inbox comes to.
    """

    run: str
    name: str
    workspace: bytes
    workspace_id: str
    status: str
    turns: int
    started_ns: int
    updated_ns: int
    parent: str | None
    family: str
    problem: str | None
    labels: dict[str, tuple[int, int]]
    view: RunView
    marks: Marks
    damage: Problem | None = None


class CheckpointRow(msgspec.Struct, frozen=True):
    """A state that can be restored.

    Attributes:
        run, turn, inner: which; inner is 0 for the end of the turn.
        root: the tree.
        position: seq of the last entry that belongs to it.
        protection: ``captured``, ``durable``, ``replicated`` or ``inherited``; ``unprotected`` if
            it was captured but could not be made durable.
        consistency: of which instant its files are.
        workspace, workspace_id: of which directory.
        turn_row: the turn.
        processes: id of the root of what was alive; empty if nothing was.
        skipped: turns that were passed over as they have no checkpoint, where it was counted from
            the end.
    """

    run: str
    turn: int
    inner: int
    root: ObjectId
    position: int
    protection: Protection
    consistency: Consistency
    workspace: bytes
    workspace_id: str
    turn_row: TurnRow
    processes: bytes = b""
    skipped: tuple[int, ...] = ()


def find_run(rows: Sequence[RunRow], text: str) -> RunRow:
    """The run that `text` means, among `rows` (newest first).

    ``last`` is the newest run that is nobody's child; a damaged one too, if so much can be read.

    Raises:
        NotFound: none. Ambiguous: several.
    """
    if text == "last":
        return _last(rows)
    for row in rows:
        if row.run == text:
            return row
    named = [row for row in rows if row.name == text]
    matches = named or [row for row in rows if row.run.startswith(text)]
    if not matches:
        raise NotFound("there is no such run", where=text, hint="`crab runs` lists them")
    if len(matches) > 1:
        raise Ambiguous("several runs match", [row.run for row in matches], where=text)
    return matches[0]


def _last(rows: Sequence[RunRow]) -> RunRow:
    readable = [row for row in rows if row.view.run] or list(rows)
    own = [row for row in readable if row.view.lineage.call is None] or readable
    if not own:
        raise NotFound("there are no runs yet", where="last")
    return own[0]


def resolve_turn(row: RunRow, ref: TurnRef) -> tuple[int, int]:
    """Turn and inner point that a label or a number from 0 on means.

    Raises:
        NotFound: no such turn or label.
        DamagedJournal: there might be, behind damage.
    """
    if ref.label is not None:
        if ref.label not in row.labels:
            refuse_if_damaged(row)
            known = ", ".join(sorted(row.labels)) or "none"
            raise NotFound(
                "no turn has that label", where=f"{row.run}@{ref.label}", hint=f"labels: {known}"
            )
        turn, inner = row.labels[ref.label]
    else:
        turn, inner = ref.turn or 0, ref.inner
    if turn > row.turns:
        refuse_if_damaged(row)
        raise NotFound(
            "the run has no such turn", where=f"{row.run}@{ref}", hint=f"turns 0 to {row.turns}"
        )
    return turn, inner


def from_the_end(
    row: RunRow, ref: TurnRef, turns: Sequence[TurnRow]
) -> tuple[int, int, tuple[int, ...]]:
    """The turn that a negative number means (-1 is the last one that can be restored), 0, skipped.

    Args:
        row: the run.
        ref: the number.
        turns: the run's turns from the end back to that one, or to the first.

    Raises:
        NotFound: not so many turns can be restored.
    """
    restorable = [turn.turn for turn in turns if turn.restorable]
    if len(restorable) < -(ref.turn or 0):
        raise NotFound(
            "the run has no such turn",
            where=f"{row.run}@{ref}",
            hint=f"{len(restorable)} of its turns 0 to {row.turns} can be restored",
        )
    found = restorable[-1]
    return found, 0, tuple(turn.turn for turn in reversed(turns) if not turn.restorable)


def refuse_if_damaged(row: RunRow) -> None:
    """Refuse an answer that damage may hide.

    Raises:
        DamagedJournal: the run's journal is broken, and where.
        FormatTooNew, StoreUnavailable: it cannot be read for that reason.
    """
    if row.damage is not None:
        raise row.damage.error()


def only(row: RunRow, number: int, turns: Sequence[TurnRow]) -> TurnRow:
    """The one turn that was asked for.

    Raises:
        NotFound: it was never journalled.
        DamagedJournal: it is behind damage, perhaps.
    """
    if not turns:
        refuse_if_damaged(row)
        raise NotFound("nothing was journalled about that turn", where=f"{row.run}@{number}")
    return turns[0]


def checkpoint_of(
    row: RunRow, turn: TurnRow, inner: int, nearest: int | None, skipped: tuple[int, ...] = ()
) -> CheckpointRow:
    """The state at the end of `turn`, or at its inner point.

    Args:
        row: the run.
        turn: the turn.
        inner: 0 for its end.
        nearest: an earlier turn that can be restored, for the hint.
        skipped: turns that were passed over to get to it.

    Raises:
        NotFound: there is none, and why.
        DamagedJournal: there may be one, behind damage.
    """
    where = f"{row.run}@{turn.turn}.{inner}" if inner else f"{row.run}@{turn.turn}"
    hint = None if nearest is None else f"the nearest before it: {row.run}@{nearest}"
    if turn.thinned_ns:
        day = time.strftime("%Y-%m-%d", time.localtime(turn.thinned_ns // 10**9))
        raise NotFound(
            f"turn {turn.turn} was thinned by {turn.thinned_why or 'retention'} on {day}:"
            " its conversation is kept, its files are not",
            where=where,
            hint=hint,
        )
    root, position, protection = turn.root, turn.position, turn.protection
    processes = turn.processes
    if inner:
        found = next((one for one in turn.inner if one.inner == inner), None)
        if found is None:
            refuse_if_damaged(row)
            raise NotFound("the turn has no such inner checkpoint", where=where, hint=hint)
        root, position, protection = found.root, found.position, found.protection
        processes = found.processes
    if root is None:
        refuse_if_damaged(row)
        why = "; ".join(turn.unprotected) or "it was still open"
        raise NotFound(f"turn {turn.turn} has no checkpoint: {why}", where=where, hint=hint)
    return CheckpointRow(
        run=row.run,
        turn=turn.turn,
        inner=inner,
        root=root,
        position=position,
        protection=protection,
        consistency=turn.consistency,
        workspace=row.workspace,
        workspace_id=row.workspace_id,
        turn_row=turn,
        processes=processes,
        skipped=skipped,
    )


def with_marks(views: Sequence[TurnView], run: RunView, marks: Marks) -> list[TurnRow]:
    """`views` with labels, pins and thinning filled in, from the journal and from the inbox."""
    labels: dict[int, list[str]] = {}
    for label, (turn, _) in marks.merged_labels(run.labels).items():
        labels.setdefault(turn, []).append(label)
    pins = {**run.pins, **marks.pins}
    low = min((view.turn for view in views), default=0)
    high = max((view.turn for view in views), default=-1)
    thinned = {
        turn: r for r in marks.thinned for turn in range(max(r.first, low), min(r.last, high) + 1)
    }
    return [_marked(view, labels, pins, thinned) for view in views]


def _marked(
    view: TurnView,
    labels: dict[int, list[str]],
    pins: dict[int, bool],
    thinned: dict[int, ThinnedRange],
) -> TurnRow:
    number = view.turn
    if number not in labels and number not in pins and number not in thinned:
        return view
    gone = thinned.get(number)
    return replace(
        view,
        labels=tuple(sorted(labels.get(number, ()))),
        pinned=pins.get(number, False),
        thinned_ns=0 if gone is None else gone.wall_ns,
        thinned_why="" if gone is None else gone.reason,
    )
