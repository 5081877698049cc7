"""The background half of a run: one thread that scans, captures and commits while the model thinks.

Concurrency contract. The engine's thread is the only one that touches the `Tracker`. Jobs run in
the order they were asked for, so a later checkpoint never overtakes an earlier one. The loop's
threads only ask for jobs and wait on their futures; they and the engine meet in `Job.settle`, which
decides, once, whether a capture counts or came too late. Errors never escape the thread: a job that
fails is settled as failed, and its run says so at the next gate.

One engine serves a run and its children (they share the workspace).
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from crabrt.core.config import Config
from crabrt.inspector import Observer
from crabrt.inspector.caches import Caches
from crabrt.store import Store, StoreWriter
from crabrt.workspace import Claim, RestoreReport, Tracker, Workspace

T = TypeVar("T")


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
    """

    def __init__(self, turn: int, inner: int, position: int) -> None:
        self.turn = turn
        self.inner = inner
        self.position = position
        self.captured: Future[None] = Future()
        self.durable: Future[None] = Future()
        self.error: BaseException | None = None
        self.exposed_ms: float | None = None
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
        config: how the family is set up.
        caches: knows what tools make again by themselves; the engine's thread's.
        recovered: what came of a killed restore that was finished before this run; None: no such.
        latest: the checkpoint that was asked for last, by whichever run.
        acted: whether a tool of any run has acted in this process.
        closed: set when its last run is over.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        workspace: Workspace,
        claim: Claim,
        observer: Observer,
    ) -> None:
        self.config = config
        self.caches = Caches(config.regenerable_patterns)
        self.store = store
        self.workspace = workspace
        self.writer: StoreWriter = store.writer()
        self.tracker = self._new_tracker()
        self.recovered: RestoreReport | None = None
        self.latest: Job | None = None
        self.acted = False
        self.observer = observer
        self._claim = claim
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._pid = os.getpid()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crabrt-engine")
        self._users = 1
        self._users_lock = threading.Lock()
        self.closed = threading.Event()

    def _new_tracker(self) -> Tracker:
        return Tracker(
            self.workspace,
            huge_files=self.config.huge_files,
            huge_bytes=self.config.huge_bytes,
            force=self.config.force,
        )

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on the engine's thread, after everything asked for before."""
        with self._waiting_lock:
            self._waiting += 1
        return self._threads.submit(self._begin, work)

    def _begin(self, work: Callable[[], T]) -> T:
        with self._waiting_lock:
            self._waiting -= 1
        return work()

    def wanted(self) -> bool:
        """Whether somebody waits for the engine's thread: what can wait should."""
        return self._waiting > 0 or self.closed.is_set()

    def forget(self) -> None:
        """After a failed write: trust only what was persisted with the last durable checkpoint."""
        self.tracker = self._new_tracker()
        self.tracker.load(self.store)
        self.observer.distrust()

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
        if os.getpid() != self._pid:
            return
        with self._users_lock:
            self._users -= 1
            if self._users:
                return
        self.closed.set()
        try:
            self._threads.shutdown(wait=True)
        finally:
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
