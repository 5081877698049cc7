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
    Noted,
    Payload,
    Request,
    Response,
    Result,
)
from crabrt.core.verdicts import Likely, Prior
from crabrt.errors import NotResumable
from crabrt.inspector import CallFact, guess_call
from crabrt.process.family import left_since
from crabrt.runtime import doubts, golive, outgoing, unclosed
from crabrt.runtime.callbacks import external_of, key_of, usage_of
from crabrt.runtime.exceptions import revive_exception, seal_exception
from crabrt.runtime.forecast import Thinking
from crabrt.runtime.payloads import payload_bytes
from crabrt.runtime.replay import Advice, Sealed, Species
from crabrt.runtime.requests import Asked, ask
from crabrt.runtime.scopes import Frame
from crabrt.runtime.session import CODECS, Session
from crabrt.runtime.specs import Spec, Usage
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.waits import Steps

CANCEL_SLACK_S = 5.0
"""How much later than it did a loop may cancel a call that it cancelled: what a gate took before
the call began is not in the time that it ran for."""


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
        if not self.streamed and not isinstance(recorded, list | tuple):
            recorded = ([], recorded)  # what stands for a call that was in doubt
        items, returned = recorded if isinstance(recorded, tuple) else (recorded, None)

        def end() -> Any:
            self._raised()
            return returned

        return items, end

    def in_turn(self) -> Steps[None]:
        """Wait until what came before it has reached the loop, as it did when it ran."""
        if self.session.replay is not None:
            sealed = self.sealed
            yield from self.session.replay.arrivals.in_turn(sealed.call, sealed.lasted_s)

    def over(self) -> None:
        """It has reached the loop: what came after it may."""
        if self.session.replay is not None:
            self.session.replay.arrivals.over(self.sealed.call, inside=True)

    async def cancelled(self) -> None:
        """Where the call was cancelled: wait until the loop does it again, as by a time limit.

        Only then do ``asyncio.timeout``, ``wait_for`` and task groups know that it was theirs. If
        nobody does it for as long as the call ran (a person did, or the call itself), go on.
        """
        if self.sealed.cancelled:
            try:
                await asyncio.sleep(self.sealed.lasted_s + CANCEL_SLACK_S)
            finally:
                self.over()

    def value(self) -> Any:
        """The result, or the recorded exception raised.

        Raises:
            NotResumable: the result was never stored, or its class is not known here.
        """
        self.over()
        self._raised()
        return self._decoded()

    def _raised(self) -> None:
        """Raise what the call raised, if it did."""
        sealed, failure = self.sealed, self.sealed.failure
        if sealed.cancelled:
            error: BaseException = asyncio.CancelledError()
        elif failure is not None:
            state = payload_bytes(failure.state, self.session.engine.store)
            error = revive_exception(CODECS, failure, state, self.known)
        else:
            return
        replay = self.session.replay
        if replay is None or not replay.went_on_from(sealed):
            self.session.bad_ends.ended(sealed.call, error, acted_outside=sealed.external)
        raise error

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
    ) -> None:
        self.session = session
        self.call = call
        self._spec = spec
        self._species = species
        self._sealed = sealed
        self._commits = False
        self._thinking: Thinking | None = None
        self._started = time.perf_counter()

    @property
    def settled_before(self) -> bool:
        """Whether it is made again although the loop knew what came of it, and went on."""
        sealed = self._sealed
        return sealed is not None and sealed.sealed_seq is not None and not sealed.cut_off

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
        effects = self._spec.effects
        external = effects is not None and effects.prior is Prior.EXTERNAL
        self.session.bad_ends.ended(self.call, error, acted_outside=external)
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
            self.session.machine.rest()

    def wake(self) -> None:
        """Its caller wants more."""
        with self.session.lock:
            self.session.machine.wake()

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
        spent_ms = round((time.perf_counter() - self._started) * 1e3, 3)
        self._model_answered(spent_ms if failure is None and not cancelled else None)
        if session.inert:
            return
        left = 0
        if self._species is Species.TOOL and session.engine.config.processes != "off":
            left = left_since(time.monotonic_ns() - int(spent_ms * 1e6))
        with session.recording():
            payload = session.value(encode, self.call) if encode is not None else Payload()
            if self._species is Species.MODEL:
                session.machine.reply_delivered()
                session.append(
                    Response(
                        self.call, spent_ms, payload, failure, cancelled, streamed,
                        usage.tokens_in, usage.tokens_out, usage.cost_usd,
                    )
                )  # fmt: skip
            else:
                session.tool_ended(left=self._commits)
                session.append(
                    Result(self.call, spent_ms, payload, failure, cancelled, streamed, left)
                )
            self._compare(payload, failure, cancelled=cancelled)
        if self._commits:
            yield from session.make_durable(acted=True)
        if self._species is Species.TOOL:
            outgoing.after(session)
        elif not session.machine.wraps_tools:
            yield from session.gate()

    def _model_answered(self, spent_ms: float | None = None) -> None:
        """It is no longer asked; what it took, if it gave a reply."""
        engine = self.session.engine
        if self._species is Species.MODEL:
            engine.models.end()
        if self._thinking is not None:
            engine.forecast.ended(self._thinking, None if spent_ms is None else spent_ms / 1e3)

    def _compare(self, payload: Payload, failure: Failure | None, *, cancelled: bool) -> None:
        """After a re-run: with another result, what was recorded later never happened."""
        sealed, replay = self._sealed, self.session.replay
        if sealed is None or replay is None or sealed.sealed_seq is None:
            return
        if (payload, failure, cancelled) != (sealed.result, sealed.failure, sealed.cancelled):
            self.session.append(replay.differs(sealed))


Outcome = Answer | Acting


def begin(
    frame: Frame,
    spec: Spec,
    species: Species,
    named: Mapping[str, Any],
    *,
    lasting: bool = False,
) -> Steps[Outcome]:
    """The first half of a call of `spec` with the arguments `named`, made in `frame`.

    Args:
        frame: of whoever makes it.
        spec: what is known of the function.
        species: model or tool.
        named: its arguments.
        lasting: it is a block, whose end is not its outcome: it waits for no others.

    Raises:
        Diverged: a resumed loop was recorded to make another call here.
        InDoubt: it is external, began before, and has no recorded outcome.
        NotDurable: it is external, and what it depends on cannot be made durable.
        Unprotected: a checkpoint failed and the run is strict.
    """
    session = frame.session
    yield from unclosed.goes_on(session, frame.scope)
    session.bad_ends.begins(model=species is Species.MODEL)
    key = key_of(spec, named, session.losses)
    if spec.effects is not None:
        identifying = {k: v for k, v in named.items() if k not in spec.effects.volatile}
    else:
        identifying = dict(named)
    known = session.messages if species is Species.MODEL else None
    asked = ask(CODECS, identifying, key=key, known=known)
    scope = frame.scope.here()
    call = scope.identify(spec.name, asked.digest)
    sealed = yield from _recall(session, spec, species, call, asked, named=named, lasting=lasting)
    if isinstance(sealed, Answer):
        return sealed
    if not session.acting:
        yield from golive.go_live(session)
    if species is Species.TOOL:
        yield from golive.may_act(session)
    acting = Acting(session, spec, species, call, sealed)
    if sealed is not None:
        with session.lock:
            session.follow(sealed.turn)
    if species is Species.MODEL:
        _request(session, call, asked, recorded=sealed is not None)
        session.engine.models.begin()
        acting._thinking = session.engine.forecast.began(  # noqa: SLF001
            session.id, asked.model or spec.name
        )
    else:
        nested = frame.inside == Species.TOOL.value
        acting._commits = yield from _intent(  # noqa: SLF001
            session, spec, call, asked, named, nested=nested
        )
    acting._started = time.perf_counter()  # noqa: SLF001  its own half of the protocol
    return acting


def _recall(
    session: Session,
    spec: Spec,
    species: Species,
    call: CallId,
    asked: Asked,
    *,
    named: Mapping[str, Any],
    lasting: bool,
) -> Steps[Answer | Sealed | None]:
    """What the record says of a call: the answer, or what is done anew; None: nothing."""
    if session.replay is None:
        return None
    with session.lock:
        step = session.replay.take(call, species, asked.digest)
        sealed = step.sealed
    if step.advice is Advice.ANSWER and sealed is not None:
        answer = Answer(session, sealed, spec.known)
        if not (sealed.streamed or sealed.cancelled or lasting):
            yield from answer.in_turn()
        with session.lock:
            _answered(session, spec, sealed, undone=step.undone)
        if lasting:
            answer.over()
        return answer
    if step.advice is Advice.DOUBT and sealed is not None:
        settled = yield from doubts.settle(session, spec, sealed, named)
        if settled is not None:
            with session.lock:
                _answered(session, spec, settled, undone=False)
            return Answer(session, settled, spec.known)
    if step.advice is Advice.DIVERGED and sealed is not None:
        yield from golive.diverge(session, call, asked, sealed)
        return None
    return sealed


def _answered(session: Session, spec: Spec, sealed: Sealed, *, undone: bool) -> None:
    session.follow(sealed.turn)
    if undone and not session.over:
        name = sealed.call.callable
        text = f"{name} left the machine: it was not made again; what it did to files is gone"
        session.append(Noted("answered", text))
    if sealed.species is Species.TOOL:
        session.machine.tool_answered()
    else:
        session.machine.reply_delivered()
        if sealed.took_s is not None:
            model = sealed.model or spec.name
            session.engine.forecast.learn(session.id, model, sealed.took_s)


def _request(session: Session, call: CallId, asked: Asked, *, recorded: bool) -> None:
    with session.recording():
        if not recorded:
            session.begin_model_call()
        messages, told, writer = None, None, session.engine.writer
        if asked.messages is not None:
            stored = session.stored(lambda: session.messages.put(asked.messages or (), writer))
            messages, told = stored if stored is not None else (None, None)
        arguments = session.payload(asked.arguments)
        written = session.append(Request(call, asked.digest, arguments, messages, asked.model))
        if written and told is not None:
            session.messages.named(told)


def _intent(
    session: Session,
    spec: Spec,
    call: CallId,
    asked: Asked,
    named: Mapping[str, Any],
    *,
    nested: bool,
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
    commits, since = external is not None or guessed, time.perf_counter()
    fact, begun, told = CallFact(spec.name, prior, guess), False, False
    try:
        if commits:
            yield from outgoing.before(session, call, external, nested=nested)
        if guessed:
            yield from outgoing.look_closer(session)
        session.begin_tool_call(fact)
        begun = True
        yield from session.gate(since if commits else None)
        with session.recording():
            arguments = session.payload(asked.arguments)
            intent, told = Intent(call, asked.digest, arguments, prior, external, guess), True
            written = session.append(intent)
        if commits:
            if not written:
                session.not_durable("its intent cannot be written", guessed=guessed)
            yield from session.make_durable(guessed=guessed)
    except BaseException as error:
        # Who catches it may go on: a resume has to find that call, and what came of it.
        if not begun:
            session.begin_tool_call(fact)
        with session.recording():
            session.machine.tool_ended()
            if not told:
                session.append(Intent(call, asked.digest, session.payload(asked.arguments), prior))
            session.append(_did_not_act(call, error))
        session.bad_ends.ended(call, error)
        raise
    return commits


def _did_not_act(call: CallId, error: BaseException) -> Result:
    """On record as what it is: it is in no doubt, and has done nothing."""
    if isinstance(error, asyncio.CancelledError):
        return Result(call, 0.0, cancelled=True, acted=False)
    return Result(call, 0.0, failure=seal_exception(CODECS, error, {}), acted=False)
