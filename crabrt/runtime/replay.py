"""What a resumed loop is told: sealed calls by identity, and the rule for those behind C.

SEMANTICS "Resume". Let C be the checkpoint the workspace was put to. Calls sealed before C are
answered. After C: model replies are answered; calls that left the machine or may have, declared or
taken for external, are answered, never run; every other tool call runs again, its new result
supersedes the old one, and from the first different result on the loop is live.

Without a result, a declared call is in doubt; one that was only taken for external runs again. So
it is with the calls that the run ended with, as they failed or were cut off (design note 14).

In an ordered scope calls must come in the recorded order; a different one is a divergence. Request
digests are compared, not used to match (except where there is no order, see ``scopes``).
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from enum import Enum

from crabrt.core.content import Content
from crabrt.core.entries import (
    CallId,
    Ended,
    Failure,
    Forked,
    Intent,
    Noted,
    Payload,
    Recorded,
    Request,
    Response,
    Result,
    Resumed,
    Superseded,
    TurnOpened,
)
from crabrt.core.verdicts import Likely, Prior
from crabrt.journal import Record
from crabrt.runtime.arrivals import Arrivals
from crabrt.runtime.recovery import GAP, Outside
from crabrt.runtime.scopes import UNORDERED


class Species(Enum):
    """What made a record."""

    MODEL = "model"
    TOOL = "tool"
    VALUE = "value"


@dataclasses.dataclass
class Sealed:
    """A recorded call.

    Attributes:
        call: its identity.
        species: model, tool, or recorded value.
        turn: the turn it belongs to; 0: it is of another line of the family's history.
        opened_seq: seq of its request or intent (of the first one, if it ran again in that turn).
        made_seq: of the last one.
        external: it was declared so, and not stopped before it acted.
        guessed: it was taken for external, likewise.
        sealed_seq: seq of its result; None while it has none.
        void: the result is no longer true of the disk (a restore went behind it).
        cut_off: the run ended with it.
        model: its name, where the request gave one.
        took_s: how long the model thought, where it gave a reply.
        lasted_s: how long the call ran, however it ended.
    """

    call: CallId
    species: Species
    digest: bytes
    turn: int
    opened_seq: int
    arguments: Payload = Payload()  # noqa: RUF009  frozen
    messages: Content | None = None
    external: bool = False
    guessed: bool = False
    sealed_seq: int | None = None
    made_seq: int = 0
    void: bool = False
    cut_off: bool = False
    result: Payload = Payload()  # noqa: RUF009  frozen
    failure: Failure | None = None
    cancelled: bool = False
    streamed: bool = False
    model: str | None = None
    took_s: float | None = None
    lasted_s: float = 0.0

    @property
    def lasts(self) -> bool:
        """Whether its result, once it has one, is true whatever was restored: it acted outside."""
        return self.external or self.guessed


class Advice(Enum):
    """What to do with a call that a resumed loop makes."""

    ANSWER = "answer"
    RERUN = "rerun"
    ACT = "act"
    DOUBT = "doubt"
    DIVERGED = "diverged"


@dataclasses.dataclass(frozen=True)
class Step:
    """Advice on one call, with the record it concerns (None: nothing was recorded).

    Attributes:
        undone: it is answered, but what it did to the workspace is not there.
    """

    advice: Advice
    sealed: Sealed | None = None
    undone: bool = False


class Replay:
    """The recorded prefix of a run, consumed as the loop is run again. Thread-safe.

    Args:
        records: the journal, from its first entry.
        position: seq up to which the journal describes the state the workspace is in.
        family: sealed external calls of other members of the run's family.

    Attributes:
        bases: on which turn each turn began.
        outside: calls that acted outside, by turn; also those that no answer was asked of.
        settled: whoever called this run went on from how it ended: that is not made otherwise.
        arrivals: in which order its outcomes reach the loop.
    """

    def __init__(
        self, records: Iterable[Record], position: int, family: Iterable[Sealed] = ()
    ) -> None:
        self._lock = threading.Lock()
        self.position = position
        self.bases: dict[int, int] = {}
        self.outside = Outside()
        self._by_call: dict[CallId, Sealed] = {}
        self._externals: dict[CallId, Sealed] = {sealed.call: sealed for sealed in family}
        self._gap: int | None = None
        self._resumed, self._ended = 0, False
        self._taken: set[CallId] = set()
        self.settled = False
        for record in records:
            self._fold(record)
        self._close_gap()
        self._last_opened = self._find_last_opened()
        self._order: dict[str, list[CallId]] = {}
        for sealed in sorted(self._by_call.values(), key=lambda s: s.opened_seq):
            self._order.setdefault(sealed.call.scope, []).append(sealed.call)
        self._next: dict[str, int] = {}
        self.arrivals = Arrivals(
            {call: one.sealed_seq for call, one in self._by_call.items() if one.sealed_seq}
        )

    def _fold(self, record: Record) -> None:
        body, seq, turn = record.body, record.entry.seq, record.entry.turn
        if isinstance(body, TurnOpened):
            self.bases[body.turn] = body.base
        elif isinstance(body, Request):
            made = self._open(body.call, Species.MODEL, body.digest, turn, seq)
            made.arguments, made.messages = body.arguments, body.messages
            made.model = body.model
        elif isinstance(body, Intent):
            self._begin(body, turn, seq)
        elif isinstance(body, Response | Result):
            self._seal(body, seq)
        elif isinstance(body, Recorded):
            made = self._open(body.call, Species.VALUE, b"", turn, seq)
            made.sealed_seq, made.result = seq, body.value
        elif isinstance(body, Noted) and body.topic == GAP:
            self._gap = self._gap or seq
        else:
            self._turn_round(body, seq)

    def _turn_round(self, body: object, seq: int) -> None:
        """What an entry says about those before it: void, or forgotten."""
        if isinstance(body, Ended):
            self._cut_off(body.cut_off)
            self._ended = True
        elif isinstance(body, Resumed):
            self._resumed, self._ended = seq, False
            self._close_gap()
            if body.mode == "restored":
                self._void_after(body.position)
        elif isinstance(body, Superseded):
            self._supersede(body)
        elif isinstance(body, Forked):
            self._fork(body.lineage.seq or seq)
            self._cut_off(body.cut_off)
            self.outside.forget_behind(body.turn)

    def _cut_off(self, calls: Iterable[CallId]) -> None:
        """The run ended with them."""
        for call in calls:
            if call in self._by_call:
                self._by_call[call].cut_off = True

    def _fork(self, cut: int) -> None:
        """What is behind `cut` happened to the run that this one is a fork of.

        Who goes on from an earlier turn has decided about what was in doubt behind it. A guess is
        no declaration: it keeps a run from repeating itself, not its forks from doing the like.
        """
        self._forget_after(cut)
        self._externals = {
            call: sealed
            for call, sealed in self._externals.items()
            if sealed.sealed_seq and (sealed.external or sealed.opened_seq <= cut)
        }

    def _begin(self, body: Intent, turn: int, seq: int) -> None:
        made = self._open(body.call, Species.TOOL, body.digest, turn, seq)
        made.arguments, made.external = body.arguments, body.prior is Prior.EXTERNAL
        made.guessed = body.guess is not None and body.guess.effect is Likely.EXTERNAL
        self.outside.note(body, turn)
        if made.lasts:
            self._externals[made.call] = made

    def _open(self, call: CallId, species: Species, digest: bytes, turn: int, seq: int) -> Sealed:
        old = self._by_call.get(call)
        first = old.opened_seq if old is not None and old.turn == turn else seq
        made = self._by_call[call] = Sealed(call, species, digest, turn, first, made_seq=seq)
        return made

    def _seal(self, body: Response | Result, seq: int) -> None:
        sealed = self._by_call.get(body.call)
        known = self._externals.get(body.call)
        if sealed is None and known is not None and known.sealed_seq is None:
            sealed = known  # it began before an earlier call gave another result, and ended after
        if sealed is None:
            return
        sealed.sealed_seq, sealed.void = seq, False
        sealed.cut_off = body.cancelled and self._ended  # some tasks end after the run has
        sealed.result, sealed.failure = body.result, body.failure
        sealed.cancelled, sealed.streamed = body.cancelled, body.streamed
        if isinstance(body, Response):
            sealed.lasted_s = body.wait_ms / 1e3
            if body.failure is None and not body.cancelled:
                sealed.took_s = sealed.lasted_s
        else:
            sealed.lasted_s = body.duration_ms / 1e3
            if not body.acted:
                sealed.external = sealed.guessed = False
                self._externals.pop(sealed.call, None)

    @property
    def externals(self) -> list[Sealed]:
        """The sealed calls that were declared external, for other members of the family."""
        known = self._externals.values()
        return [s for s in known if s.external and s.sealed_seq is not None and not s.cut_off]

    def _close_gap(self) -> None:
        """What was recorded behind missing entries is not taken for the whole story: it is redone.

        External calls stay known.
        """
        if self._gap is not None:
            self._forget_after(self._gap)
            self._gap = None

    def _forget_after(self, seq: int) -> None:
        self._by_call = {c: s for c, s in self._by_call.items() if s.opened_seq <= seq}

    def _supersede(self, body: Superseded) -> None:
        kept = frozenset(body.kept)
        self._by_call = {
            call: sealed
            for call, sealed in self._by_call.items()
            if call in kept
            or sealed.made_seq > self._resumed > 0
            or not _never_happened(sealed, body.after, body.within)
        }

    def _void_after(self, position: int) -> None:
        for sealed in self._by_call.values():
            if sealed.species is Species.TOOL and not sealed.lasts:
                seq = sealed.sealed_seq
                sealed.void = sealed.void or (seq is not None and seq > position)

    def take(self, call: CallId, species: Species, digest: bytes) -> Step:
        """Advice on `call`, which the loop makes now. Each record is taken once."""
        with self._lock:
            sealed = self._expected(call)
            if sealed is None or call not in self._by_call:
                known = self._elsewhere(call, species, digest)
                if known is not None:
                    return known
            if sealed is None:
                return Step(Advice.ACT)
            if (
                sealed.call != call
                or sealed.species is not species
                or (sealed.digest != digest and species is not Species.VALUE)
            ):
                return Step(Advice.DIVERGED, sealed)
            self._next[call.scope] = self._next.get(call.scope, 0) + 1
            self._taken.add(call)
            step = self._advise(sealed)
            if step.advice is Advice.ANSWER and species is not Species.VALUE:
                self.arrivals.made(call)
            else:
                self.arrivals.over(call)
            return step

    def _expected(self, call: CallId) -> Sealed | None:
        if call.scope.endswith(f"/{UNORDERED}"):
            return self._by_call.get(call)
        order = self._order.get(call.scope, [])
        at = self._next.get(call.scope, 0)
        return self._by_call[order[at]] if at < len(order) else None

    def _elsewhere(self, call: CallId, species: Species, digest: bytes) -> Step | None:
        """Advice on a call that another line of this history, or the family's, made outside.

        Here it has no place in the order, and belongs to no turn: of it nothing is recorded here.
        """
        known = self._externals.get(call)
        if known is None or known.species is not species or known.digest != digest:
            return None
        if known.sealed_seq is None or known.cut_off:
            if known.external:
                return Step(Advice.DOUBT, dataclasses.replace(known, turn=0))
            return None
        return Step(Advice.ANSWER, dataclasses.replace(known, turn=0), undone=True)

    def _advise(self, sealed: Sealed) -> Step:
        if sealed.sealed_seq is None or (sealed.cut_off and not self.settled):
            if sealed.external:
                return Step(Advice.DOUBT, sealed)
            return Step(Advice.ACT if sealed.sealed_seq is None else Advice.RERUN, sealed)
        undone = sealed.void or sealed.sealed_seq > self.position
        undone = undone and sealed.species is Species.TOOL
        if undone and not sealed.lasts:
            return Step(Advice.RERUN, sealed)
        return Step(Advice.ANSWER, sealed, undone=undone)

    def went_on_from(self, sealed: Sealed) -> bool:
        """Whether the loop that was recorded made another call after the result of `sealed`."""
        return self._last_opened > (sealed.sealed_seq or sealed.opened_seq)

    def _find_last_opened(self) -> int:
        return max((sealed.opened_seq for sealed in self._by_call.values()), default=0)

    def differs(self, sealed: Sealed) -> Superseded:
        """A call ran again and its result is another: what was recorded later never happened.

        What left the machine stays known by identity and request: it is never run twice. So does
        what was answered already: parallel calls, which did not rest on it.

        Returns:
            What the journal is to say.
        """
        after = sealed.sealed_seq or sealed.opened_seq
        within = sealed.call.inside
        with self._lock:
            gone = {c for c, one in self._by_call.items() if _never_happened(one, after, within)}
            kept = tuple(sorted(gone & self._taken))
            gone -= self._taken
            for order in self._order.values():
                order[:] = [call for call in order if call not in gone]
            self._by_call = {c: one for c, one in self._by_call.items() if c not in gone}
            self._last_opened = self._find_last_opened()
        self.arrivals.forget(gone)
        return Superseded(after, within, kept)


def _never_happened(sealed: Sealed, after: int, within: str) -> bool:
    return sealed.opened_seq > after or sealed.call.is_within(within)
