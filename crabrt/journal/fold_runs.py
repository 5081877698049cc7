"""A run as a whole, folded: where it comes from, how it goes on and ends, its marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from crabrt.core.entries import (
    Body,
    Ended,
    Forked,
    Labelled,
    Pinned,
    Resumed,
    RolledBack,
    Started,
    Unlabelled,
)
from crabrt.core.ids import ObjectId
from crabrt.errors import DamagedJournal
from crabrt.journal.fold_states import checked_root
from crabrt.journal.reading import Record
from crabrt.journal.turntable import Fold
from crabrt.journal.views import (
    ENDING,
    FORKED,
    OPEN,
    RESUMED,
    ROLLED_BACK,
    MoveView,
    RunView,
    TurnView,
    plausible,
)


def _started(fold: Fold, body: Started, record: Record) -> None:
    fold.edit_run(
        run=body.run,
        name=body.name,
        workspace_path=body.workspace_path,
        workspace_id=body.workspace_id,
        lineage=body.lineage,
        argv=body.argv,
        cwd=body.cwd,
        agent=body.agent,
        arguments=body.arguments,
        version=body.version,
        exclude=body.exclude,
        pid=body.pid,
        started_ns=record.entry.wall_ns,
    )
    fold.touch(0, record)


def _forked(fold: Fold, body: Forked, record: Record) -> None:
    seq = body.lineage.seq
    if body.turn < 0:
        raise DamagedJournal(f"turn {body.turn} makes no sense", where=fold.where)
    fold.drop_turns(body.turn + 1)
    fold.state.calls = {}
    fold.state.checked = min(fold.state.checked, body.turn)
    turn = fold.touch(body.turn, record)
    if seq is not None:
        turn.drop_calls_after(seq, keep_outside=False)
        kept = tuple(move for move in turn.view.moves if move.seq <= seq)
        turn.view = replace(turn.view, moves=kept)
    _move(fold, record, FORKED, body.turn, body.lineage.parent or "")
    run = fold.run
    root = _state_at(turn.view, seq)
    restorable = body.turn if turn.view.root is not None else fold.restorable_before(body.turn)
    fold.edit_run(
        run=body.run,
        name=body.name,
        workspace_path=body.workspace_path,
        workspace_id=body.workspace_id,
        lineage=body.lineage,
        status=FORKED,
        started_ns=record.entry.wall_ns,
        forked_at=body.turn,
        resumed=0,
        pid=0,
        result=RunView().result,
        failure=None,
        exit_ms=0.0,
        restorable=restorable,
        root=root,
        root_turn=body.turn,
        root_ns=record.entry.wall_ns,
        labels={label: at for label, at in run.labels.items() if at[0] <= body.turn},
        pins={},
    )


def _resumed(fold: Fold, body: Resumed, record: Record) -> None:
    turn = fold.get(body.turn)
    root = None if turn is None else _state_at(turn.view, body.position)
    if root is not None:
        fold.edit_run(root=root, root_turn=body.turn, root_ns=record.entry.wall_ns)
    fold.edit_run(
        status=OPEN,
        pid=body.pid,
        resumed=fold.run.resumed + 1,
        failure=None,
        exit_ms=0.0,
        exclude=tuple(dict.fromkeys((*fold.run.exclude, *body.exclude))),
    )
    _move(fold, record, RESUMED, body.turn, body.mode)


def _ended(fold: Fold, body: Ended, record: Record) -> None:
    fold.edit_run(
        status=body.status,
        result=body.result,
        failure=body.failure,
        exit_ms=plausible(body.exit_ms),
    )
    _move(fold, record, ENDING, None, body.status)


def _rolled_back(fold: Fold, body: RolledBack, record: Record) -> None:
    fold.edit_run(
        root=checked_root(fold, body.root), root_turn=body.to, root_ns=record.entry.wall_ns
    )
    _move(fold, record, ROLLED_BACK, body.to)


def _move(fold: Fold, record: Record, kind: str, to: int | None, how: str = "") -> None:
    entry = record.entry
    fold.add_moves(record, MoveView(kind, entry.seq, entry.wall_ns, to, how))


def _state_at(view: TurnView, seq: int | None) -> ObjectId | None:
    """The root at a place: of the inner checkpoint that is there, else of the turn's end."""
    for inner in view.inner:
        if seq is not None and inner.position == seq:
            return inner.root
    return view.root


def _labelled(fold: Fold, body: Labelled, record: Record) -> None:
    del record
    fold.edit_run(labels={**fold.run.labels, body.label: (body.turn, body.inner)})


def _unlabelled(fold: Fold, body: Unlabelled, record: Record) -> None:
    del record
    kept = {label: at for label, at in fold.run.labels.items() if label != body.label}
    fold.edit_run(labels=kept)


def _pinned(fold: Fold, body: Pinned, record: Record) -> None:
    del record
    fold.edit_run(pins={**fold.run.pins, body.turn: body.pinned})


HANDLERS: dict[type[Body], Callable[[Fold, Any, Record], None]] = {
    Started: _started,
    Forked: _forked,
    Resumed: _resumed,
    RolledBack: _rolled_back,
    Labelled: _labelled,
    Unlabelled: _unlabelled,
    Pinned: _pinned,
    Ended: _ended,
}
"""What each kind of entry does to the fold."""
