"""The life of one call: asked, answered or acted, sealed. The same steps for sync and async.

A call either finds its answer in the journal (`Answer`) or acts: its request or intent is
journalled, the gate passed, the function run by the caller, the outcome sealed (`Acting.finish`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from crabrt.core.entries import (
    CallId,
    Failure,
    Intent,
    Payload,
    Request,
    Response,
    Result,
    Superseded,
)
from crabrt.core.verdicts import Likely, Prior
from crabrt.errors import NotDurable, NotResumable
from crabrt.inspector import CallFact, guess_call
from crabrt.runtime import golive
from crabrt.runtime.callbacks import external_of, key_of, usage_of
from crabrt.runtime.exceptions import revive_exception, seal_exception
from crabrt.runtime.payloads import payload_bytes
from crabrt.runtime.replay import Advice, Sealed, Species
from crabrt.runtime.requests import Asked, ask
from crabrt.runtime.scopes import Frame
from crabrt.runtime.session import CODECS, Session
from crabrt.runtime.specs import Spec, Usage
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.waits import Steps


@dataclasses.dataclass(frozen=True)
class Answer:
    """A sealed outcome, from the journal."""

    session: Session
    sealed: Sealed
    known: Mapping[str, type]

    @property
    def streamed(self) -> bool:
        """Whether the value is the list of items of a stream."""
        return self.sealed.streamed

    def stream(self) -> tuple[list[Any], Callable[[], Any]]:
        """The items of a stream; and its end, which returns what it returned, or raises.

        Raises:
            NotResumable: they were never stored, or a class among them is not known here.
        """
        recorded = self._decoded()
        items, returned = recorded if isinstance(recorded, tuple) else (recorded, None)

        def end() -> Any:
            self._raised()
            return returned

        return items, end

    def value(self) -> Any:
        """The result, or the recorded exception raised.

        Raises:
            NotResumable: the result was never stored, or its class is not known here.
        """
        self._raised()
        return self._decoded()

    def _raised(self) -> None:
        """Raise what the call raised, if it did."""
        if self.sealed.cancelled:
            raise asyncio.CancelledError
        failure = self.sealed.failure
        if failure is not None:
            state = payload_bytes(failure.state, self.session.engine.store)
            raise revive_exception(CODECS, failure, state, self.known)

    def _decoded(self) -> Any:
        sealed = self.sealed
        data = payload_bytes(sealed.result, self.session.engine.store)
        if data is None:
            raise self._refused(sealed.result.missing or "it was not stored")
        try:
            return CODECS.decode(data, self.known)
        except NotEncodable as error:
            raise self._refused(str(error)) from error

    def _refused(self, reason: str) -> NotResumable:
        turn = self.sealed.turn
        return NotResumable(
            f"the result of {self.sealed.call} cannot be given back: {reason}",
            where=f"{self.session.id}@{turn}",
            hint=f"resume from an earlier turn: {self.session.id}@{max(turn - 1, 0)}",
        )


class Acting:
    """A call that acts. Exactly one of `finish`, `fail`, `cancel` (or `abandon`) ends it."""

    def __init__(
        self,
        session: Session,
        spec: Spec,
        species: Species,
        call: CallId,
        sealed: Sealed | None,
        *,
        model: str,
    ) -> None:
        self.session = session
        self.call = call
        self._spec = spec
        self._species = species
        self._sealed = sealed
        self._model = model
        self._commits = False
        self._started = time.perf_counter()

    def frame(self, outer: Frame) -> Frame:
        """The context for the function's own run."""
        return Frame(self.session, outer.scope.inside(self.call), self._species.value)

    def finish(self, value: Any) -> Steps[None]:
        """It returned `value`."""
        usage, known = usage_of(self._spec, value, self.session.losses), self._spec.known
        yield from self._seal(lambda: CODECS.encode(value, known), None, usage=usage)

    def finish_stream(self, items: list[Any], returned: Any = None) -> Steps[None]:
        """It was a stream of `items`, and `returned` a value at its end (a generator may)."""
        usage, known = usage_of(self._spec, items, self.session.losses), self._spec.known
        value = items if returned is None else (items, returned)
        yield from self._seal(lambda: CODECS.encode(value, known), None, streamed=True, usage=usage)

    def fail(self, error: BaseException, items: list[Any] | None = None) -> Steps[None]:
        """It raised; a cancellation is sealed as one, an interrupt leaves the call open.

        Args:
            error: what it raised.
            items: what a stream had delivered until then.
        """
        known, encode = self._spec.known, None
        if items is not None:
            encode = lambda: CODECS.encode(items, known)  # noqa: E731  as in `finish`
        streamed = items is not None
        if isinstance(error, asyncio.CancelledError):
            yield from self._seal(encode, None, cancelled=True, streamed=streamed)
        elif isinstance(error, Exception):
            yield from self._seal(encode, seal_exception(CODECS, error, known), streamed=streamed)
        else:
            self.abandon()

    def rest(self) -> None:
        """It is a child run that waits for its caller to want more of it: it is not running."""
        with self.session.lock:
            self.session.rested = True
            self.session.machine.running -= 1

    def wake(self) -> None:
        """Its caller wants more."""
        with self.session.lock:
            self.session.machine.running += 1

    def drop(self) -> None:
        """It was a stream that nobody read, and is garbage: no outcome is recorded."""
        self._model_answered()
        if self._species is Species.TOOL:
            self.session.drop()

    def abandon(self) -> None:
        """It was interrupted: no outcome is recorded, as if the process had been killed."""
        self._model_answered()
        if self._species is Species.TOOL and not self.session.inert:
            with self.session.lock:
                self.session.machine.tool_ended()

    def _seal(
        self,
        encode: Callable[[], bytes] | None,
        failure: Failure | None,
        *,
        cancelled: bool = False,
        streamed: bool = False,
        usage: Usage = Usage(),  # noqa: B008  frozen
    ) -> Steps[None]:
        session = self.session
        self._model_answered()
        if session.inert:
            return
        spent_ms = round((time.perf_counter() - self._started) * 1e3, 3)
        with session.recording():
            payload = session.value(encode) if encode is not None else Payload()
            if self._species is Species.MODEL:
                session.model_replied(self._model, spent_ms)
                session.append(
                    Response(
                        self.call, spent_ms, payload, failure, cancelled, streamed,
                        usage.tokens_in, usage.tokens_out, usage.cost_usd,
                    )
                )  # fmt: skip
            else:
                session.tool_ended()
                session.append(Result(self.call, spent_ms, payload, failure, cancelled, streamed))
            self._compare(payload, failure)
        if self._commits:
            yield from session.make_durable(acted=True)
            session.inner_checkpoint()
        elif self._species is Species.MODEL and not session.machine.wraps_tools:
            yield from session.gate()

    def _model_answered(self) -> None:
        if self._species is Species.MODEL:
            self.session.engine.models.end()

    def _compare(self, payload: Payload, failure: Failure | None) -> None:
        """After a re-run: with another result, what was recorded later never happened."""
        sealed, replay = self._sealed, self.session.replay
        if sealed is None or replay is None or sealed.sealed_seq is None:
            return
        if payload != sealed.result or failure != sealed.failure:
            replay.differs(sealed)
            self.session.append(Superseded(sealed.opened_seq))


Outcome = Answer | Acting


def begin(frame: Frame, spec: Spec, species: Species, named: Mapping[str, Any]) -> Steps[Outcome]:
    """The first half of a call of `spec` with the arguments `named`, made in `frame`.

    Raises:
        Diverged: a resumed loop was recorded to make another call here.
        InDoubt: it is external, began before, and has no recorded outcome.
        NotDurable: it is external, and what it depends on cannot be made durable.
        Unprotected: a checkpoint failed and the run is strict.
    """
    session = frame.session
    key = key_of(spec, named, session.losses)
    if spec.effects is not None:
        identifying = {k: v for k, v in named.items() if k not in spec.effects.volatile}
    else:
        identifying = dict(named)
    known = session.messages if species is Species.MODEL else None
    asked = ask(CODECS, identifying, key=key, known=known)
    scope = frame.scope.here()
    call = scope.identify(spec.name, asked.digest)
    sealed = None
    if session.replay is not None:
        with session.lock:
            step = session.replay.take(call, species, asked.digest)
            sealed = step.sealed
            if step.advice is Advice.ANSWER and sealed is not None:
                return _answered(session, spec, sealed)
        if step.advice is Advice.DIVERGED and sealed is not None:
            yield from golive.diverge(session, call, asked, sealed)
            sealed = None
    if not session.acting:
        yield from golive.go_live(session)
    model = asked.model or spec.name
    acting = Acting(session, spec, species, call, sealed, model=model)
    if sealed is not None:
        with session.lock:
            session.follow(sealed.turn)
    if species is Species.MODEL:
        _request(session, call, asked, model, recorded=sealed is not None)
        session.engine.models.begin()
    else:
        acting._commits = yield from _intent(session, spec, call, asked, named)  # noqa: SLF001
    acting._started = time.perf_counter()  # noqa: SLF001  its own half of the protocol
    return acting


def _answered(session: Session, spec: Spec, sealed: Sealed) -> Answer:
    session.follow(sealed.turn)
    if sealed.species is Species.TOOL:
        session.machine.tool_answered()
    else:
        session.machine.reply_delivered()
    return Answer(session, sealed, spec.known)


def _request(session: Session, call: CallId, asked: Asked, model: str, *, recorded: bool) -> None:
    with session.recording():
        if not recorded:
            session.begin_model_call(model)
        messages, told, writer = None, None, session.engine.writer
        if asked.messages is not None:
            stored = session.stored(lambda: session.messages.put(asked.messages or (), writer))
            messages, told = stored if stored is not None else (None, None)
        arguments = session.payload(asked.arguments)
        written = session.append(Request(call, asked.digest, arguments, messages, asked.model))
        if written and told is not None:
            session.messages.named(told)


def _intent(
    session: Session, spec: Spec, call: CallId, asked: Asked, named: Mapping[str, Any]
) -> Steps[bool]:
    """Before a tool acts; whether what it does has to be committed when it has.

    A call that is declared external, or taken for one, waits until all before it is durable; only
    a declared one is stopped where that cannot be had.
    """
    effects, external = spec.effects, external_of(spec, named, session.losses)
    prior = effects.prior if effects is not None else Prior.AUTO
    workspace = os.fsdecode(session.engine.workspace.path)
    guess = guess_call(spec.name, prior, named, workspace=workspace)
    guessed = guess is not None and guess.effect is Likely.EXTERNAL
    commits = external is not None or guessed
    if commits:
        if session.machine.tool_finished:
            session.inner_checkpoint()
        yield from session.durable_gate(guessed=guessed)
    if guessed:
        session.reaching.sharpen()
    session.begin_tool_call(CallFact(spec.name, prior, guess))
    try:
        yield from session.gate()
        with session.recording():
            arguments = session.payload(asked.arguments)
            intent = Intent(call, asked.digest, arguments, prior, external, guess)
            written = session.append(intent)
        if commits:
            if not written:
                session.not_durable("its intent cannot be written", guessed=guessed)
            yield from session.make_durable(guessed=guessed)
    except BaseException as error:
        with session.lock:
            session.machine.tool_ended()
            if isinstance(error, NotDurable):  # on record as what it is: it is in no doubt
                session.append(Result(call, 0.0, failure=seal_exception(CODECS, error, {})))
        raise
    return commits
