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
from crabrt.journal.views import DAMAGED, RunView, TurnView

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
        problem: what is damaged, or None.
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


def find_run(rows: Sequence[RunRow], text: str) -> RunRow:
    """The run that `text` means, among `rows` (newest first).

    ``last`` is the newest run that is nobody's child and can be read.

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
    readable = [row for row in rows if row.status != DAMAGED] or list(rows)
    own = [row for row in readable if row.view.lineage.call is None] or readable
    if not own:
        raise NotFound("there are no runs yet", where="last")
    return own[0]


def resolve_turn(row: RunRow, ref: TurnRef) -> tuple[int, int]:
    """Turn and inner point that `ref` means. -1 is the latest turn.

    Raises:
        NotFound: no such turn or label.
    """
    if ref.label is not None:
        if ref.label not in row.labels:
            known = ", ".join(sorted(row.labels)) or "none"
            raise NotFound(
                "no turn has that label", where=f"{row.run}@{ref.label}", hint=f"labels: {known}"
            )
        return row.labels[ref.label]
    number = -1 if ref.turn is None else ref.turn
    turn = number if number >= 0 else row.turns + 1 + number
    if not 0 <= turn <= row.turns:
        raise NotFound(
            "the run has no such turn", where=f"{row.run}@{ref}", hint=f"turns 0 to {row.turns}"
        )
    return turn, ref.inner


def only(row: RunRow, number: int, turns: Sequence[TurnRow]) -> TurnRow:
    """The one turn that was asked for.

    Raises:
        NotFound: it was never journalled.
    """
    if not turns:
        raise NotFound("nothing was journalled about that turn", where=f"{row.run}@{number}")
    return turns[0]


def checkpoint_of(row: RunRow, turn: TurnRow, inner: int, nearest: int | None) -> CheckpointRow:
    """The state at the end of `turn`, or at its inner point.

    Args:
        row: the run.
        turn: the turn.
        inner: 0 for its end.
        nearest: an earlier turn that can be restored, for the hint.

    Raises:
        NotFound: there is none, and why.
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
    if inner:
        found = next((one for one in turn.inner if one.inner == inner), None)
        if found is None:
            raise NotFound("the turn has no such inner checkpoint", where=where, hint=hint)
        root, position, protection = found.root, found.position, found.protection
    if root is None:
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
    )


def with_marks(views: Sequence[TurnView], run: RunView, marks: Marks) -> list[TurnRow]:
    """`views` with labels, pins and thinning filled in, from the journal and from the inbox."""
    labels: dict[int, list[str]] = {}
    for label, (turn, _) in marks.merged_labels(run.labels).items():
        labels.setdefault(turn, []).append(label)
    pins = {**run.pins, **marks.pins}
    thinned = {
        turn: r for r in marks.thinned for turn in range(max(r.first, 0), min(r.last, run.turn) + 1)
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
