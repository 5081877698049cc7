"""Turns and their calls, folded: what began, what came back, what ran again or never happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from crabrt.core.entries import Body, Intent, Request, Response, Result, Superseded, TurnOpened
from crabrt.journal.reading import Record
from crabrt.journal.turntable import Fold
from crabrt.journal.views import OPEN, ModelView, ToolView, plausible


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
        turn.drop_calls_after(body.after, keep_outside=True)
        fold.mark_changed(number)
    fold.state.calls = {
        call: number for call, number in fold.state.calls.items() if fold.has_call(number, call)
    }
    last = fold.run.turn
    while last > first and fold.begins_after(last, body.after) and not fold.count_calls(last):
        last -= 1
    moves = fold.moves_from(last + 1)
    fold.drop_turns(last + 1)
    if moves:
        fold.add_moves(record, *moves)


def _request(fold: Fold, body: Request, record: Record) -> None:
    number = fold.turn_of(body.call, record)
    if number is None:
        number = record.entry.turn
    turn = fold.touch(number, record)
    known = turn.models.get(body.call)
    if known is None:
        known = ModelView(body.call, None, record.entry.seq, body.model)
    turn.models[body.call] = replace(known, began_ns=record.entry.wall_ns)
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
        wait_ms=plausible(body.wait_ms),
        tokens_in=body.tokens_in,
        tokens_out=body.tokens_out,
        cost_usd=None if body.cost_usd is None else plausible(body.cost_usd),
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
        guess = None if body.guess is None else body.guess.effect
        turn.tools[body.call] = ToolView(
            body.call,
            None,
            record.entry.seq,
            prior=body.prior,
            guess=guess,
            began_ns=record.entry.wall_ns,
        )
    else:
        turn.tools[body.call] = replace(old, ok=None, began_ns=record.entry.wall_ns)
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
        duration_ms=plausible(body.duration_ms),
        cancelled=body.cancelled,
        times=old.times + 1,
        acted=body.acted,
    )


HANDLERS: dict[type[Body], Callable[[Fold, Any, Record], None]] = {
    TurnOpened: _turn_opened,
    Superseded: _superseded,
    Request: _request,
    Response: _response,
    Intent: _intent,
    Result: _result,
}
"""What each kind of entry does to the fold."""
