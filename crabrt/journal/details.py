"""One turn in full: its calls, what went in and what came out, read from the journal on demand."""

from __future__ import annotations

from pathlib import Path

import msgspec

from crabrt.core.content import Content
from crabrt.core.entries import (
    CallId,
    External,
    Failure,
    Intent,
    Payload,
    Recorded,
    Request,
    Response,
    Result,
)
from crabrt.core.verdicts import Guess, Prior
from crabrt.journal.reading import read_journal
from crabrt.journal.views import TurnView, plausible


class CallDetail(msgspec.Struct, frozen=True):
    """One call, as far as it is recorded. Values are encoded, or references into the store.

    Attributes:
        call: its identity.
        model: whether it asked a model; else it is a tool's.
        wall_ns: when it began (when it last began, if it ran again).
        arguments: what went in.
        messages: the conversation sent (a list of message ids); None for tools.
        asked: the model asked, if known.
        prior, external: what a tool was declared to do.
        guess: what it was taken for, where nothing is declared.
        result: what came out; None while there is no result.
        failure: what it raised, or None.
        cancelled, streamed: how it ended.
        duration_ms: how long it took; for a model, the wait.
        tokens_in, tokens_out, cost_usd: as reported.
    """

    call: CallId
    model: bool
    wall_ns: int
    arguments: Payload
    messages: Content | None = None
    asked: str | None = None
    prior: Prior = Prior.AUTO
    external: External | None = None
    result: Payload | None = None
    failure: Failure | None = None
    cancelled: bool = False
    streamed: bool = False
    duration_ms: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    guess: Guess | None = None


class TurnDetail(msgspec.Struct, frozen=True):
    """A turn's row, its calls in order, and the values it recorded."""

    view: TurnView
    calls: tuple[CallDetail, ...]
    recorded: tuple[tuple[CallId, Payload], ...]


def turn_detail(directory: Path, view: TurnView) -> TurnDetail:
    """The turn of `view` in full. Only the part of the journal that is about it is read.

    Raises:
        PositionLost: the row is older than a power cut that took the turn; refresh the index.
        NotFound, DamagedJournal, FormatTooNew, StoreUnavailable: as `read_journal`.
    """
    wanted = {tool.call for tool in view.tools} | {model.call for model in view.models}
    calls: dict[CallId, CallDetail] = {}
    recorded: dict[CallId, Payload] = {}
    for record in read_journal(directory, after=view.first):
        if record.entry.seq > view.last_seq:
            break
        body, wall_ns = record.body, record.entry.wall_ns
        if isinstance(body, Recorded):
            if record.entry.turn == view.turn:
                recorded[body.call] = body.value
        elif isinstance(body, Request | Intent | Response | Result) and body.call in wanted:
            if isinstance(body, Request):
                calls[body.call] = CallDetail(
                    body.call, True, wall_ns, body.arguments, body.messages, body.model
                )
            elif isinstance(body, Intent):
                calls[body.call] = CallDetail(
                    body.call,
                    False,
                    wall_ns,
                    body.arguments,
                    prior=body.prior,
                    external=body.external,
                    guess=body.guess,
                )
            elif body.call in calls:
                calls[body.call] = _sealed(calls[body.call], body)
    return TurnDetail(view, tuple(calls.values()), tuple(recorded.items()))


def _sealed(call: CallDetail, body: Response | Result) -> CallDetail:
    call = msgspec.structs.replace(
        call,
        result=body.result,
        failure=body.failure,
        cancelled=body.cancelled,
        streamed=body.streamed,
    )
    if isinstance(body, Result):
        return msgspec.structs.replace(call, duration_ms=plausible(body.duration_ms))
    return msgspec.structs.replace(
        call,
        duration_ms=plausible(body.wait_ms),
        tokens_in=body.tokens_in,
        tokens_out=body.tokens_out,
        cost_usd=None if body.cost_usd is None else plausible(body.cost_usd),
    )
