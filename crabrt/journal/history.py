"""The fold of a journal into `RunView` and `TurnView`. Pure: records in, values out.

What makes it more than a table of handlers:

* Entries about turn k arrive after turn k+1 opened (its verdict, its checkpoint): they name their
  turn themselves. A call belongs to the turn in which it was first made.
* A call that ran again on resume has several results and is one call; the last result counts.
* ``superseded`` and ``forked`` say that calls behind a place never happened (here): they go, and
  turns opened behind it with them. External calls stay: they did happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from crabrt.core.entries import (
    Body,
    Captured,
    Checkpoint,
    Ended,
    Exposed,
    Forked,
    Gated,
    Intent,
    Labelled,
    Noted,
    Observed,
    Pinned,
    Request,
    Response,
    Result,
    Resumed,
    RolledBack,
    Started,
    Superseded,
    TurnOpened,
    Unlabelled,
)
from crabrt.core.ids import ID_BYTES, ObjectId
from crabrt.core.verdicts import Protection
from crabrt.errors import DamagedJournal
from crabrt.journal.reading import Record
from crabrt.journal.turntable import Fold, OpenTurn
from crabrt.journal.views import (
    FORKED,
    OPEN,
    InnerView,
    ModelView,
    NoteView,
    RunView,
    ToolView,
    TurnView,
)

_MAX_BYTES = 1 << 62
_SAFE = (Protection.DURABLE, Protection.REPLICATED, Protection.INHERITED)


class History(Fold):
    """The fold. Feed it the records of one journal, in order."""

    def feed(self, record: Record) -> None:
        """Take in the next entry.

        Raises:
            DamagedJournal: it contradicts itself.
        """
        self.where = f"{record.segment}:{record.offset}"
        body, state = record.body, self.state
        if body is not None:
            handler = _HANDLERS.get(type(body))
            if handler is not None:
                handler(self, body, record)
        state.after = record.position
        state.run = replace(state.run, updated_ns=record.entry.wall_ns)


# -- the run -----------------------------------------------------------------------------


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
    fold.drop_turns(body.turn + 1)
    fold.state.calls = {}
    fold.state.checked = min(fold.state.checked, body.turn)
    turn = fold.touch(body.turn, record)
    if seq is not None:
        turn.drop_calls_after(seq, keep_external=False)
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
        status=OPEN, pid=body.pid, resumed=fold.run.resumed + 1, failure=None, exit_ms=0.0
    )


def _ended(fold: Fold, body: Ended, record: Record) -> None:
    del record
    fold.edit_run(
        status=body.status, result=body.result, failure=body.failure, exit_ms=body.exit_ms
    )


def _turn_opened(fold: Fold, body: TurnOpened, record: Record) -> None:
    if fold.run.status != OPEN:
        fold.edit_run(status=OPEN)
    fold.edit(body.turn, record, base=body.base)


def _superseded(fold: Fold, body: Superseded, record: Record) -> None:
    first = min(record.entry.turn, fold.run.turn)
    while first > fold.state.checked and fold.begins_after(first, body.after):
        first -= 1
    for number in range(first, fold.run.turn + 1):
        turn = fold.get(number)
        if turn is None:
            continue
        turn.drop_calls_after(body.after, keep_external=True)
        fold.mark_changed(number)
    fold.state.calls = {
        call: number for call, number in fold.state.calls.items() if fold.has_call(number, call)
    }
    last = fold.run.turn
    while last > first and fold.begins_after(last, body.after) and not fold.count_calls(last):
        last -= 1
    fold.drop_turns(last + 1)


def _state_at(view: TurnView, seq: int | None) -> ObjectId | None:
    """The root at a place: of the inner checkpoint that is there, else of the turn's end."""
    for inner in view.inner:
        if seq is not None and inner.position == seq:
            return inner.root
    return view.root


# -- calls -------------------------------------------------------------------------------


def _request(fold: Fold, body: Request, record: Record) -> None:
    number = fold.turn_of(body.call, record)
    if number is None:
        number = record.entry.turn
    turn = fold.touch(number, record)
    if body.call not in turn.models:
        turn.models[body.call] = ModelView(body.call, None, record.entry.seq, body.model)
    fold.state.calls[body.call] = number


def _response(fold: Fold, body: Response, record: Record) -> None:
    number = fold.turn_of(body.call, record)
    turn = None if number is None else fold.touch(number, record)
    if turn is None or body.call not in turn.models:
        return
    fold.state.calls.pop(body.call, None)
    old = turn.models[body.call]
    turn.models[body.call] = replace(
        old,
        ok=body.failure is None and not body.cancelled,
        wait_ms=body.wait_ms,
        tokens_in=body.tokens_in,
        tokens_out=body.tokens_out,
        cost_usd=body.cost_usd,
        streamed=body.streamed,
        cancelled=body.cancelled,
        times=old.times + 1,
    )


def _intent(fold: Fold, body: Intent, record: Record) -> None:
    number = fold.turn_of(body.call, record)
    if number is None:
        number = record.entry.turn
    turn = fold.touch(number, record)
    old = turn.tools.get(body.call)
    if old is None:
        turn.tools[body.call] = ToolView(body.call, None, record.entry.seq, prior=body.prior)
    else:
        turn.tools[body.call] = replace(old, ok=None)
    fold.state.calls[body.call] = number


def _result(fold: Fold, body: Result, record: Record) -> None:
    number = fold.turn_of(body.call, record)
    turn = None if number is None else fold.touch(number, record)
    if turn is None or body.call not in turn.tools:
        return
    fold.state.calls.pop(body.call, None)
    old = turn.tools[body.call]
    turn.tools[body.call] = replace(
        old,
        ok=body.failure is None and not body.cancelled,
        duration_ms=body.duration_ms,
        cancelled=body.cancelled,
        times=old.times + 1,
    )


# -- states ------------------------------------------------------------------------------


def _observed(fold: Fold, body: Observed, record: Record) -> None:
    verdict = body.verdict
    fold.edit(
        body.turn,
        record,
        verdict=tuple(verdict.names),
        evidence=verdict.evidence,
        files_added=verdict.files_added,
        files_changed=verdict.files_changed,
        files_removed=verdict.files_removed,
        sample=verdict.sample,
        unobserved=verdict.unobserved,
    )


def _captured(fold: Fold, body: Captured, record: Record) -> None:
    root = _root(fold, body.root)
    turn = fold.touch(body.turn, record)
    fold.edit_run(root=root, root_turn=body.turn, root_ns=record.entry.wall_ns)
    if body.inner:
        _put_inner(fold, turn, body, Protection.CAPTURED, record)
        return
    turn.view = replace(
        turn.view, root=root, position=body.position, protection=Protection.CAPTURED
    )
    fold.edit_run(restorable=body.turn)


def _checkpoint(fold: Fold, body: Checkpoint, record: Record) -> None:
    turn = fold.touch(body.turn, record)
    view = turn.view
    root = _root(fold, body.root)
    fold.edit_run(root=root, root_turn=body.turn, root_ns=record.entry.wall_ns)
    if not 0 <= body.bytes_stored <= _MAX_BYTES:
        raise DamagedJournal("a checkpoint's size makes no sense", where=fold.where)
    turn.view = view = replace(
        view,
        bytes_stored=min(view.bytes_stored + body.bytes_stored, _MAX_BYTES),
        not_captured=view.not_captured + body.not_captured,
        shared=view.shared or body.shared,
    )
    if body.inner:
        _put_inner(fold, turn, body, body.protection, record)
        return
    turn.view = replace(
        view,
        root=root,
        position=body.position,
        protection=body.protection,
        consistency=body.consistency,
        scan_ms=body.scan_ms,
        capture_ms=body.capture_ms,
        durable_ms=body.durable_ms,
    )
    fold.edit_run(restorable=body.turn)
    fold.state.checked = body.turn


def _root(fold: Fold, root: bytes) -> ObjectId:
    if len(root) != ID_BYTES:
        raise DamagedJournal("a checkpoint names no root", where=fold.where)
    return ObjectId(root)


def _put_inner(
    fold: Fold, turn: OpenTurn, body: Captured | Checkpoint, protection: Protection, record: Record
) -> None:
    inner = InnerView(
        body.inner, _root(fold, body.root), body.position, protection, record.entry.wall_ns
    )
    others = [other for other in turn.view.inner if other.inner != body.inner]
    kept = sorted([*others, inner], key=lambda one: one.inner)
    turn.view = replace(turn.view, inner=tuple(kept))


def _gated(fold: Fold, body: Gated, record: Record) -> None:
    turn = fold.touch(body.turn, record)
    turn.view = replace(turn.view, exposed_ms=turn.view.exposed_ms + body.exposed_ms)


def _exposed(fold: Fold, body: Exposed, record: Record) -> None:
    turn = fold.touch(body.turn, record)
    view = turn.view
    safe = view.protection in _SAFE
    turn.view = replace(
        view,
        unprotected=(*view.unprotected, body.reason),
        protection=view.protection if safe else Protection.UNPROTECTED,
    )


def _rolled_back(fold: Fold, body: RolledBack, record: Record) -> None:
    fold.edit_run(root=_root(fold, body.root), root_turn=body.to, root_ns=record.entry.wall_ns)


# -- marks -------------------------------------------------------------------------------


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


def _noted(fold: Fold, body: Noted, record: Record) -> None:
    turn = fold.touch(record.entry.turn, record)
    note = NoteView(body.topic, body.text, body.paths)
    turn.view = replace(turn.view, notes=(*turn.view.notes, note))


_HANDLERS: dict[type[Body], Callable[[Fold, Any, Record], None]] = {
    Started: _started,
    Forked: _forked,
    Resumed: _resumed,
    TurnOpened: _turn_opened,
    Request: _request,
    Response: _response,
    Intent: _intent,
    Result: _result,
    Superseded: _superseded,
    Observed: _observed,
    Captured: _captured,
    Checkpoint: _checkpoint,
    Gated: _gated,
    Exposed: _exposed,
    RolledBack: _rolled_back,
    Labelled: _labelled,
    Unlabelled: _unlabelled,
    Pinned: _pinned,
    Noted: _noted,
    Ended: _ended,
}


def fold(records: Iterable[Record]) -> History:
    """The history of a whole journal.

    Raises:
        DamagedJournal, FormatTooNew, NotFound, StoreUnavailable: as `reading.read_journal`.
    """
    history = History()
    for record in records:
        history.feed(record)
    return history
