"""The background half of a run: it looks, captures and commits while the model thinks.

Concurrency contract. The engine's thread is the only one that touches the `Tracker`: it looks and
captures. A thread behind it makes durable what was captured (`committing`), so that a slow disk
does not hold up the next capture. Jobs run in the order they were asked for, so a later checkpoint
never overtakes an earlier one. The loop's threads only ask for jobs and wait on their futures; they
and the engine meet in `Job.settle`, which decides, once, whether a capture counts or came too late.
Errors never escape the threads: a job that fails is settled as failed, and its run says so at the
next gate.

One engine serves a run and its children (they share the workspace).
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from crabrt.core.config import Config
from crabrt.inspector import Observer
from crabrt.inspector.caches import Caches
from crabrt.inspector.early import EarlyWork
from crabrt.inspector.network import NetworkObserver, Spans
from crabrt.process.custody import Custody
from crabrt.runtime.alive import imager
from crabrt.runtime.committing import Committer
from crabrt.runtime.forecast import Forecast
from crabrt.runtime.lingering import Lingering
from crabrt.runtime.putbacks import PutBacks
from crabrt.store import Store, StoreWriter
from crabrt.workspace import Claim, RestoreReport, Tracker, Workspace

T = TypeVar("T")

_FOR_IMAGES: Final = 0.75
"""What images get of the time that a gate waits: the rest is to end them, and for files."""


PUT_OFF_MOST: Final = 8
"""So many times upkeep waits for a model that thinks for longer; what it saves is only a cache."""


class Fate(enum.Enum):
    """How a job came out."""

    OPEN = "open"
    CAPTURED = "captured"
    TOO_LATE = "too late"
    FAILED = "failed"


class Job:
    """One checkpoint in the making.

    Attributes:
        turn, inner: what it is a checkpoint of.
        position: seq of the last entry that belongs to the state.
        captured, durable: done when that is reached, or when it never will be (see `fate`).
        error: why it failed.
        beside: other runs that acted in the workspace meanwhile.
        wanted_by: when whoever waits for it gives up, less what it takes to copy files, by
            ``time.monotonic``; while nobody waits, infinity.
    """

    def __init__(self, turn: int, inner: int, position: int) -> None:
        self.turn = turn
        self.inner = inner
        self.position = position
        self.captured: Future[None] = Future()
        self.durable: Future[None] = Future()
        self.error: BaseException | None = None
        self.exposed_ms: float | None = None
        self.beside: list[str] = []
        self.wanted_by = math.inf
        self._fate = Fate.OPEN
        self._lock = threading.Lock()

    @property
    def fate(self) -> Fate:
        """How it came out so far."""
        return self._fate

    def settle(self, fate: Fate, error: BaseException | None = None) -> bool:
        """Decide how it came out; whether this call decided (the first one does)."""
        with self._lock:
            if self._fate is not Fate.OPEN:
                return False
            self._fate, self.error = fate, error
            return True

    def hurry(self, limit_s: float) -> None:
        """Somebody waits for it from now on, and not for longer than `limit_s`."""
        self.wanted_by = min(self.wanted_by, time.monotonic() + limit_s * _FOR_IMAGES)

    def fail_durable(self, error: BaseException) -> None:
        """It was captured, but could not be made durable."""
        self.error = error

    def release(self) -> None:
        """Let go of everybody who waits, whatever came of it."""
        for future in (self.captured, self.durable):
            if not future.done():
                future.set_result(None)


class Engine:
    """What the runs of one workspace share: store, writer, tracker, and the thread.

    Attributes:
        store, writer: where content goes.
        workspace, tracker: what is watched, and what is known of it.
        observer: says what may have changed in it; the engine's thread's, like the tracker.
        network: says what the processes of the run reached out to.
        custody: says what outlived a turn; the engine's thread's.
        models: when a model was asked, by any run.
        forecast: how long models will think.
        config: how the family is set up.
        caches: knows what tools make again by themselves; the engine's thread's.
        recovered: what came of a killed restore that was finished before this run; None: no such.
        latest: the checkpoint that was asked for last, by whichever run.
        put_backs: of the workspace, at ends of replays.
        events: counts the turns and tools that begin, in their order.
        committer: makes durable what was captured.
        stale: something could not be made durable, or captured: see `forget`.
        epoch: of commits, in which the tracker was last known to rest on nothing that was lost.
        early: reads for the next capture while a tool runs; the engine's thread's, see `lingering`.
        lingering: has the engine's thread do that.
        closed: set when its last run is over.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        workspace: Workspace,
        claim: Claim,
        observer: Observer,
        *,
        network: NetworkObserver,
    ) -> None:
        self.config = config
        self.caches = Caches(config.regenerable_patterns)
        self.store = store
        self.workspace = workspace
        self.writer: StoreWriter = store.writer()
        self.tracker = self._new_tracker()
        self.recovered: RestoreReport | None = None
        self.latest: Job | None = None
        self.put_backs = PutBacks()
        self.events = itertools.count(1)
        self.observer = observer
        self.network = network
        by = partial(imager, config, self.writer)
        tracks = config.processes != "off"
        self.custody = Custody(tracks=tracks, imager=by, workspace=workspace.path)
        self.models = Spans()
        self.forecast = Forecast()
        self.committer = Committer(self.writer, self._rest)
        self.stale = False
        self.epoch = self.committer.epoch
        self._upkeep: Callable[[], None] | None = None
        self._upkeep_s = 0.0
        self._put_off = 0
        self._claim = claim
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._asked: set[Job] = set()
        self._late: threading.Thread | None = None
        self._pid = os.getpid()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crabrt-engine")
        self._users = 1
        self._users_lock = threading.Lock()
        self.closed = threading.Event()
        self.early = EarlyWork(
            observer,
            workspace,
            self.writer,
            sync=self.committer.sync,
            coming_s=self.forecast.coming_s,
        )
        self.lingering = Lingering(self.early, self._threads.submit, self.wanted)

    def _new_tracker(self) -> Tracker:
        return Tracker(
            self.workspace,
            huge_files=self.config.huge_files,
            huge_bytes=self.config.huge_bytes,
            force=self.config.force,
        )

    def capture(self, job: Job, work: Callable[[], None]) -> None:
        """Run `work`, which captures for `job`, on the engine's thread after all asked before."""
        self._asked.add(job)
        self.run_aside(lambda: self._capture(job, work))

    def _capture(self, job: Job, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            job.settle(Fate.FAILED, error)
            job.release()  # whatever went wrong: nobody waits for ever
            raise
        finally:
            self._asked.discard(job)

    def wanted_by(self) -> float:
        """By when what can be left out has to be over, by ``time.monotonic``: images, that is.

        Who waits for a capture waits for those before it as well.
        """
        return min((job.wanted_by for job in self._asked.copy()), default=math.inf)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on the engine's thread, after everything asked for before.

        What was captured before is durable then, or has failed.
        """
        return self.run_aside(lambda: self._settled(work))

    def _settled(self, work: Callable[[], T]) -> T:
        self.committer.drain()
        return work()

    def run_aside(self, work: Callable[[], T]) -> Future[T]:
        """The same for what neither reads nor writes the store: it waits for no disk."""
        with self._waiting_lock:
            self._waiting += 1
        self.lingering.break_off()
        try:
            return self._threads.submit(self._begin, work)
        except RuntimeError:
            return self._run_late(work)

    def _run_late(self, work: Callable[[], T]) -> Future[T]:
        """The main thread has ended, and no executor takes work: a thread for each, in order."""
        future: Future[T] = Future()

        def run(before: threading.Thread | None) -> None:
            if before is None:
                self._threads.shutdown(wait=True)
            else:
                before.join()
            try:
                future.set_result(self._begin(work))
            except BaseException as error:  # noqa: BLE001  as an executor does
                future.set_exception(error)

        with self._waiting_lock:
            late = threading.Thread(target=run, args=(self._late,), name="crabrt-engine-late")
            late.start()
            self._late = late
        return future

    def _begin(self, work: Callable[[], T]) -> T:
        with self._waiting_lock:
            self._waiting -= 1
        try:
            return work()
        finally:
            self.lingering.go_on()

    def wanted(self) -> bool:
        """Whether somebody waits for the engine's thread: what can wait should."""
        return self._waiting > 0 or self.closed.is_set()

    def keep_up(self, upkeep: Callable[[], None]) -> None:
        """Have `upkeep` run on the engine's thread once all that was captured is durable.

        It waits for a moment when nobody needs the thread, and for a model that thinks for long
        enough; of several, the last one runs.
        """
        self._upkeep = upkeep

    def _rest(self) -> None:
        self.lingering.break_off()
        with contextlib.suppress(RuntimeError):  # it is being closed, and does this last
            self._threads.submit(self._keep_up)

    def _keep_up(self) -> None:
        upkeep = self._upkeep
        try:
            if upkeep is None or self._waiting or not self.committer.idle or self.stale:
                return
            if self._is_time():
                self._upkeep, began = None, time.monotonic()
                upkeep()
                self._upkeep_s = time.monotonic() - began
        finally:
            self.lingering.go_on()

    def _is_time(self) -> bool:
        """Whether the model will likely think until upkeep is over; now and then it is time anyway.

        While no model is asked there is nothing to wait for.
        """
        left_s = self.forecast.left_s()
        fits = left_s is None or left_s > self._upkeep_s
        if fits or self.closed.is_set() or self._put_off >= PUT_OFF_MOST:
            self._put_off = 0
            return True
        self._put_off += 1
        return False

    def forget(self) -> None:
        """After a failed write: trust only what was persisted with the last durable checkpoint."""
        self.stale = False
        self.writer.start_over()
        self.tracker = self._new_tracker()
        self.tracker.load(self.store)
        self.observer.distrust()
        self.custody.forget()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the one whose engine this is."""
        return os.getpid() != self._pid

    def share(self) -> Engine:
        """One more run uses this engine."""
        with self._users_lock:
            self._users += 1
        return self

    def close(self) -> None:
        """One run less uses it; the last one closes it, after all jobs are done.

        The claim is given back whatever goes wrong.

        Raises:
            StoreUnavailable: something that was put is not durable.
        """
        if self.is_inherited:
            return
        with self._users_lock:
            self._users -= 1
            if self._users:
                return
        self.closed.set()
        self.lingering.break_off()
        try:
            self._threads.shutdown(wait=True)
            if self._late is not None:
                self._late.join()
            self.committer.close()
            self._keep_up()
        finally:
            try:
                self.custody.shells.close(lambda: self._threads.shutdown(wait=True))
            finally:
                self._let_go()

    def _let_go(self) -> None:
        self.custody.close()
        self.network.close()
        self.observer.close()
        try:
            self.writer.close()
        finally:
            self._claim.release()
            self.store.close()


def settled(value: Any = None) -> Future[Any]:
    """A future that is done."""
    future: Future[Any] = Future()
    future.set_result(value)
    return future
