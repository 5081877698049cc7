"""A run while it lives in this process: its journal, its turn, its gate.

Concurrency contract. `lock` guards the turn machine, the replay and the order of entries that
belong together; it is held for microseconds and never while something is waited for. Calls arrive
on any thread; checkpoints are made on the engine's thread (``engine``, ``checkpoints``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

from crabrt.core.entries import Ended, Failure, Gated, Payload, TurnOpened
from crabrt.core.ids import ObjectId, RunId
from crabrt.errors import CrabError, NotDurable, WorkspaceRefused
from crabrt.inspector import CallFact
from crabrt.journal import Journal, Lease
from crabrt.process.spool import Spool
from crabrt.runtime import checkpoints, registry, unclosed
from crabrt.runtime.codec import Codecs
from crabrt.runtime.endings import BadEnds
from crabrt.runtime.engine import Engine, Fate, Job
from crabrt.runtime.ledger import Ledger
from crabrt.runtime.messages import Messages
from crabrt.runtime.reaching import Reaching
from crabrt.runtime.replay import Replay
from crabrt.runtime.scopes import Scope
from crabrt.runtime.waits import Steps, Wait

CODECS = Codecs()
"""The codecs of this process."""


def register_codec(
    cls: type, tag: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]
) -> None:
    """Store arguments and results of exactly the class `cls` under `tag`.

    Args:
        cls: the class; subclasses need a codec of their own.
        tag: a stable name, which is what stores hold.
        encode: gives something encodable for a value (JSON types, bytes, tuples, sets, ...).
        decode: gives the value back.

    Raises:
        ValueError: the tag belongs to another class.
    """
    CODECS.register(cls, tag, encode, decode)


class Session(Ledger):
    """See the module.

    Attributes:
        id, name, family: which run.
        engine, journal, lease: what it works with.
        machine: where it stands.
        scope: the agent's own line of execution.
        replay: what is left of the record, or None when the run is live.
        acting: whether the workspace is this run's to change (False while a replay only answers).
        parent: the run that called this one, if it is a child run.
        place: the line of execution in its callers' runs that it is called in (`unclosed`).
        ending: whether its loop is over.
        rested: whether a child run has waited for this one to want more of it (a generator).
        over: whether it ended long ago, and its parent's record has gone on: it answers, no more.
        root: state of the last capture.
        turn_start: state that the open turn began on; its verdict is the difference to it.
        began_on: the same of the turn that the run ended in, where a resume may go on with that.
        alive: what was alive when the open turn began.
        spool: where images of processes lie until they are in the store.
        expected: what the workspace holds when a replay begins, if that is not `root`.
        moment_ns: of which moment that is, where the workspace was restored.
        inner_marks: the last inner checkpoint of turns that were interrupted.
        root_turn: the last turn whose end was captured.
        opened_at, acted_at: when the open turn began, and when a tool last did, by the engine's
            count of such events.
        epoch: of the engine's commits, at the last capture (see `committing`).
        messages: what its model calls were told last.
        reaching: asks what its turns reached on the network.
        bad_ends: calls that the run may be about to end with.
        impatient_in: the last turn in which waiting for parallel tools did not help (`outgoing`).
    """

    def __init__(
        self,
        run_id: RunId,
        name: str,
        family: str,
        engine: Engine,
        *,
        journal: Journal,
        lease: Lease,
    ) -> None:
        super().__init__(engine, journal, lease)
        self.id = run_id
        self.name = name
        self.family = family
        self.scope = Scope("0")
        self.replay: Replay | None = None
        self.acting = True
        self.root: ObjectId | None = None
        self.turn_start: ObjectId | None = None
        self.began_on: ObjectId | None = None
        self.alive = engine.custody.last
        self.spool = Spool(engine.config.home, run_id)
        self.expected: ObjectId | None = None
        self.moment_ns: int | None = None
        self.inner_marks: dict[int, int] = {}
        self.root_turn = -1
        self.opened_at = self.acted_at = 0
        self.epoch = engine.committer.epoch
        self.parent: Session | None = None
        self.over = False
        self.place = ""
        self.ending = False
        self.rested = False
        self.messages = Messages(CODECS)
        self.reaching = Reaching(engine, self.machine)
        self.impatient_in = -1
        self._inner = 0
        self._job: Job | None = None
        self._held_until = 0.0
        self._calls: list[CallFact] = []
        self.bad_ends = BadEnds()
        self._unwritten_end: Ended | None = None
        self._announced: set[bytes] = set()
        self._dropped: deque[None] = deque()

    # -- turns -------------------------------------------------------------------------------

    def begin_model_call(self) -> None:
        """A model call is about to be sent: it may close the turn and open the next."""
        with self.lock:
            self._settle_dropped()
            if self.machine.model_call_opens():
                self.close_turn()
                self.open_turn()

    def begin_tool_call(self, fact: CallFact) -> None:
        """A tool is about to act."""
        with self.lock:
            if self.machine.tool_call_opens():
                self.open_turn()
            self.machine.tool_began()
            self.engine.lingering.tool_began(self.machine)
            self._calls.append(fact)

    def tool_ended(self, *, left: bool = False) -> None:
        """It has acted; `left`: and left the machine, or may have. Call with `lock` held."""
        self.machine.tool_ended(left=left)
        self.acted_at = next(self.engine.events)

    def drop(self) -> None:
        """A tool's stream was dropped unread. Takes no lock: garbage is collected anywhere."""
        self._dropped.append(None)

    def _settle_dropped(self) -> None:
        while self._dropped:
            self._dropped.popleft()
            self.machine.tool_ended()

    def open_turn(self, base: int | None = None) -> None:
        """The next turn begins. Call with `lock` held."""
        self.machine.open(base)
        self.opened_at = next(self.engine.events)
        self._calls, self._inner = [], 0
        self.append(TurnOpened(self.machine.turn, self.machine.base))

    def close_turn(self) -> Job | None:
        """The open turn's effects are final: have them captured. Call with `lock` held."""
        if self.machine.turn == 0 or self.machine.closed:
            return None
        self.machine.close()
        if self.machine.turn <= self.root_turn:  # resumed: it was closed when the run ended
            if not (self.machine.unsaved or self.machine.owes_point):
                return None
            self.turn_start = self.began_on  # it went on: its verdict is over all of it
        return self.checkpoint(self.machine.turn, 0)

    def follow(self, turn: int) -> None:
        """The loop makes a call that was recorded in `turn`. Call with `lock` held."""
        if turn <= self.machine.turn:  # another line of execution is further: turns never go back
            return
        if self.acting:
            self.close_turn()
        recorded = self.replay.outside.get(turn, ()) if self.replay is not None else ()
        self._calls, self._inner = list(recorded), self.inner_marks.get(turn, 0)
        bases = self.replay.bases if self.replay is not None else {}
        self.machine.move(turn, bases.get(turn, turn - 1))

    # -- checkpoints -------------------------------------------------------------------------

    def checkpoint(self, turn: int, inner: int) -> Job:
        """Ask for a checkpoint of the workspace as it is now."""
        self.machine.checkpointed()
        job = Job(turn, inner, self.journal.seq)
        job.beside = registry.beside(self)
        calls, asked = tuple(self._calls), self.reaching.asked(ends_turn=inner == 0)
        self._job = self.engine.latest = job
        self.engine.capture(job, lambda: checkpoints.make(self, job, calls, asked))
        return job

    def inner_checkpoint(self) -> Job | None:
        """Ask for a checkpoint inside the open turn; None while a tool runs (it would be torn)."""
        with self.lock:
            self._settle_dropped()
            if self.machine.running:
                return None
            self._inner += 1
            return self.checkpoint(self.machine.turn, self._inner)

    def gate(self, since: float | None = None) -> Steps[None]:
        """Hold the loop until the last checkpoint is captured, or the limit has passed.

        Args:
            since: from when the call has been held already, by ``time.perf_counter``.

        Raises:
            Unprotected: it failed, and the run is strict.
            UsageError: the workspace is refused.
        """
        job, started = self._job, time.perf_counter() if since is None else since
        if self.rested or (self.parent is not None and self.parent.rested):
            latest = self.engine.latest  # of the other one, which had the turn until now
            if latest is not None and latest is not job and not latest.captured.done():
                limit_s = self.engine.config.gate_limit_ms / 1e3
                latest.hurry(limit_s)
                yield Wait(latest.captured, limit_s)
        if job is None or (job.exposed_ms is not None and since is None):
            return
        if job.exposed_ms is None:
            yield from self._wait_for(job)
        with self.lock:
            if job.exposed_ms is None or since is not None:  # of parallel calls, one speaks
                self._exposed(job, started)
        if job.turn == 0 and self.parent is None and isinstance(job.error, WorkspaceRefused):
            raise job.error
        self.tell()

    def _wait_for(self, job: Job) -> Steps[None]:
        """Until it is captured, or the limit has passed: then its turn is unprotected."""
        config = self.engine.config
        limit_ms = config.gate_limit_ms if job.turn else config.baseline_gate_limit_ms
        enough = job.durable if config.durability == "durable" else job.captured
        if not enough.done():
            job.hurry(limit_ms / 1e3)
        done = enough.done() or (yield Wait(enough, limit_ms / 1e3))
        if not done and job.settle(Fate.TOO_LATE):
            self.lose_protection(job.turn, f"it was not captured within {limit_ms} ms")
        elif not done and config.durability == "durable" and job.fate is Fate.CAPTURED:
            self.lose_protection(job.turn, f"it was not durable within {limit_ms} ms")

    def _exposed(self, job: Job, since: float) -> None:
        """Journal that the loop was held from `since` until now.

        What parallel calls wait for at the same time counts once.
        """
        with self.lock:
            now = time.perf_counter()
            held_ms = (now - max(since, self._held_until)) * 1e3
            self._held_until = now
            job.exposed_ms = (job.exposed_ms or 0.0) + held_ms
            self.append(Gated(job.turn, round(held_ms, 3)))

    def durable_gate(self, *, guessed: bool = False) -> Steps[None]:
        """Hold the loop until everything so far is durable (output commit).

        Args:
            guessed: the call that is to follow is only taken for an external one.

        Raises:
            NotDurable: it cannot be made durable, and the configuration says to stop then.
        """
        job = self._job
        if job is not None:
            if not job.durable.done():
                yield Wait(job.durable)
            if job.error is not None or job.fate is not Fate.CAPTURED:
                reason = str(job.error or "its checkpoint came too late")
                self.not_durable(reason, guessed=guessed)

    def make_durable(self, *, acted: bool = False, guessed: bool = False) -> Steps[None]:
        """Make the journal durable up to here, with what it names.

        Args:
            acted: the effect has happened: there is nothing to stop any more.
            guessed: as in `durable_gate`.

        Raises:
            NotDurable: it cannot be, and the configuration says to stop then.
        """
        future = self.engine.submit(self._sync)
        if not future.done():
            yield Wait(future)
        error = future.exception()
        if error is not None:
            if acted:
                self.degrade(f"the result of an external call is not durable: {error}")
            else:
                self.not_durable(str(error), guessed=guessed)

    def _sync(self) -> None:
        self.engine.writer.sync()
        self.journal.sync()

    def not_durable(self, reason: str, *, guessed: bool = False) -> None:
        """What an external call depends on is not durable. A guess stops nobody.

        Raises:
            NotDurable: unless the configuration says to act all the same, or it is a guess.
        """
        if self.engine.config.on_not_durable == "raise" and not guessed:
            raise NotDurable(
                f"the external call was stopped before it acted: {reason}",
                where=f"{self.id}@{self.machine.turn}",
                hint='make room and retry, or pass on_not_durable="warn" to act unprotected',
            )
        self.degrade(reason)
        self.tell()

    # -- losing protection -------------------------------------------------------------------

    def lose_protection(self, turn: int, reason: str) -> None:
        """Turn `turn` is unprotected: journal it where possible, and have the loop told."""
        try:
            checkpoints.write_off(self, turn, reason)
        except (CrabError, OSError) as error:
            reason = f"{reason}; and the journal cannot be written: {error}"
        self.losses.add(f"turn {turn} is unprotected: {reason}")

    def tell(self) -> None:
        """Tell the loop, on its own thread, that protection was lost.

        Raises:
            Unprotected: the run is strict.
        """
        self.losses.tell(self.id)

    def first_time(self, missed: tuple[tuple[bytes, str], ...]) -> tuple[tuple[bytes, str], ...]:
        """Those of the paths that could not be captured which were not journalled before."""
        new = tuple(item for item in missed if item[0] not in self._announced)
        self._announced.update(path for path, _ in new)
        return new

    # -- the end -----------------------------------------------------------------------------

    def end(
        self,
        encode: Callable[[], bytes] | None,
        failure: Failure | None,
        error: BaseException | None = None,
    ) -> Steps[None]:
        """The agent returned or raised: close the turn, wait until it is durable, say so.

        Args:
            encode: gives the encoded result, or None where there is none to keep.
            failure: the exception it raised, sealed.
            error: the exception itself.
        """
        if self.inert:
            return
        started = time.perf_counter()
        if error is None:
            yield from unclosed.goes_on(self, self.scope)
        self.ending = True
        with self.lock:
            job = self.close_turn() or self._job
        if job is not None and not job.durable.done():
            yield Wait(job.durable)
        exit_ms = round((time.perf_counter() - started) * 1e3, 3)
        status = "done" if failure is None else "failed"
        with self.recording():
            result = self.value(encode) if encode is not None else Payload()
            body = Ended(status, exit_ms, result, failure, self.bad_ends.cut_off_by(error))
            self._unwritten_end = None if self.append(body) else body
        future = self.engine.submit(self._sync)
        if not future.done():
            yield Wait(future)
        error = future.exception()
        if error is not None:
            self.degrade(str(error))

    def close(self) -> None:
        """Let go of the journal, the lease and the engine; a failing disk is a loss. Idempotent."""
        if self.ended:
            return
        self.ended = True
        try:
            if self._job is not None and not self.lease.inert:
                wait([self._job.durable])  # it is about to be written to the journal
            self._write_end_again()
            if not self.lease.inert:
                self.spool.clear()
            self._let_go(self.journal.close)
        finally:
            try:
                end = self._unwritten_end
                self.lease.release(ended="" if end is None else end.status)
            finally:
                self.engine.forecast.left(self.id)
                self._let_go(self.engine.close)

    def _write_end_again(self) -> None:
        """An end the journal could not take: without the result there may be room for it."""
        end = self._unwritten_end
        if end is None or self.lease.inert:
            return
        result = Payload(missing="the store could not be written")
        result = Payload() if end.failure else result
        short = Ended(end.status, end.exit_ms, result, end.failure, end.cut_off)
        try:
            self.settle_gap()
            self.journal.append(short, turn=self.machine.turn)
        except (CrabError, OSError):
            return  # the lease will say it
        self._unwritten_end = None

    def _let_go(self, close: Callable[[], None]) -> None:
        try:
            close()
        except (CrabError, OSError) as error:
            self.degrade(str(error))
