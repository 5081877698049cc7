"""What became of a turn's state, folded: its verdict, its checkpoints, what protected it or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from crabrt.core.entries import Body, Captured, Checkpoint, Exposed, Gated, Noted, Observed
from crabrt.core.ids import ID_BYTES, ObjectId
from crabrt.core.verdicts import Protection
from crabrt.errors import DamagedJournal
from crabrt.journal.reading import Record
from crabrt.journal.turntable import Fold, OpenTurn
from crabrt.journal.views import MISSING, InnerView, NoteView, plausible

_MAX_BYTES = 1 << 62
_SAFE = (Protection.DURABLE, Protection.REPLICATED, Protection.INHERITED)


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
    root = checked_root(fold, body.root)
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
    root = checked_root(fold, body.root)
    if _is_newest(fold, body):
        fold.edit_run(root=root, root_turn=body.turn, root_ns=record.entry.wall_ns)
    if not 0 <= body.bytes_stored <= _MAX_BYTES:
        raise DamagedJournal("a checkpoint's size makes no sense", where=fold.where)
    turn.view = view = replace(
        view,
        bytes_stored=min(view.bytes_stored + body.bytes_stored, _MAX_BYTES),
        not_captured=view.not_captured + body.not_captured,
        shared=view.shared or body.shared,
        unprotected=tuple(dict.fromkeys((*view.unprotected, *body.unimaged))),
        frozen_ms=view.frozen_ms + plausible(body.frozen_ms),
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
        scan_ms=plausible(body.scan_ms),
        capture_ms=plausible(body.capture_ms),
        durable_ms=plausible(body.durable_ms),
        observer=body.observer,
        processes=checked_processes(fold, body.processes),
    )
    fold.edit_run(restorable=max(body.turn, fold.run.restorable or 0))
    fold.state.checked = body.turn


def _is_newest(fold: Fold, body: Checkpoint) -> bool:
    """Whether no later state was captured before this one was durable."""
    latest = fold.get(fold.run.root_turn)
    if latest is None:
        return True
    places = [inner.position for inner in latest.view.inner]
    if latest.view.root is not None:
        places.append(latest.view.position)
    return body.position >= max(places, default=0)


def checked_root(fold: Fold, root: bytes) -> ObjectId:
    """The root that an entry names.

    Raises:
        DamagedJournal: it is no id.
    """
    if len(root) != ID_BYTES:
        raise DamagedJournal("a checkpoint names no root", where=fold.where)
    return ObjectId(root)


def checked_processes(fold: Fold, root: bytes) -> bytes:
    """The root of processes that an entry names, or that it names none.

    Raises:
        DamagedJournal: it is no id.
    """
    return checked_root(fold, root) if root else b""


def _put_inner(
    fold: Fold, turn: OpenTurn, body: Captured | Checkpoint, protection: Protection, record: Record
) -> None:
    root, processes = checked_root(fold, body.root), b""
    if isinstance(body, Checkpoint):
        processes = checked_processes(fold, body.processes)
    wall_ns = record.entry.wall_ns
    inner = InnerView(body.inner, root, body.position, protection, wall_ns, processes)
    others = [other for other in turn.view.inner if other.inner != body.inner]
    kept = sorted([*others, inner], key=lambda one: one.inner)
    turn.view = replace(turn.view, inner=tuple(kept))


def _gated(fold: Fold, body: Gated, record: Record) -> None:
    turn = fold.touch(body.turn, record)
    turn.view = replace(turn.view, exposed_ms=turn.view.exposed_ms + plausible(body.exposed_ms))


def _exposed(fold: Fold, body: Exposed, record: Record) -> None:
    turn = fold.touch(body.turn, record)
    view = turn.view
    safe = view.protection in _SAFE
    turn.view = replace(
        view,
        unprotected=(*view.unprotected, body.reason),
        protection=view.protection if safe else Protection.UNPROTECTED,
    )


def _noted(fold: Fold, body: Noted, record: Record) -> None:
    turn = fold.touch(record.entry.turn, record)
    note = NoteView(body.topic, body.text, body.paths)
    turn.view = replace(turn.view, notes=(*turn.view.notes, note))
    if body.topic == MISSING:
        fold.edit_run(lacks_entries=True)


HANDLERS: dict[type[Body], Callable[[Fold, Any, Record], None]] = {
    Observed: _observed,
    Captured: _captured,
    Checkpoint: _checkpoint,
    Gated: _gated,
    Exposed: _exposed,
    Noted: _noted,
}
"""What each kind of entry does to the fold."""
