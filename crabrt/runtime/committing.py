"""The second stage of a checkpoint: what was captured becomes durable.

A capture is done when it would survive SIGKILL, and the gate opens; to survive a power cut it has
to wait for the disk. It does so on a thread of its own, behind a bounded queue: a slow disk delays
the captures that follow only once the queue is full. What is in the queue is committed together:
one sync of the packs, and one of each journal, serves all.

A sync that fails gives up what was put before it, and a state captured meanwhile may rest on that.
So captures belong to an *epoch*. It ends when a sync fails, and when the writer loses anything by a
failed write, in whichever thread; what was captured in an epoch that has ended fails as well. The
next capture begins anew from what is known to be durable.

Order is kept: checkpoints are journalled in the order of their captures. The `captured` of a later
turn may stand before the `checkpoint` of an earlier one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from crabrt.core.entries import Checkpoint
from crabrt.core.failpoints import declare
from crabrt.errors import StoreUnavailable
from crabrt.journal import Journal
from crabrt.store import StoreWriter

if TYPE_CHECKING:
    from crabrt.runtime.alive import Alive
    from crabrt.runtime.engine import Job

QUEUE_MOST: Final = 8

FP_SYNCED = declare("checkpoint.synced", "content is durable, `captured` is the last word")
FP_COMMITTED = declare("checkpoint.committed", "`checkpoint` is written, perhaps not durable")
FP_DURABLE = declare("checkpoint.durable", "the turn is durable; the index is the one before")


Epoch = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Captive:
    """A captured state that waits to be durable.

    Attributes:
        job: whose; its futures are this stage's to settle from now on.
        journal: where it is named.
        entry: the checkpoint, but for how long it took.
        epoch: in which it was captured.
        started: when its look began, by ``time.perf_counter``.
        release: gc need not keep what it names any more: its entry does, or nobody needs it.
        failed: to be told what went wrong.
        alive: what was alive then, to be stored beside the files; None: nothing was.
    """

    job: Job
    journal: Journal
    entry: Checkpoint
    epoch: Epoch
    started: float
    release: Callable[[], None]
    failed: Callable[[BaseException], None]
    alive: Alive | None = None


class Committer:
    """Makes captives durable, in their order.

    Args:
        writer: whose packs are synced.
        committed: called on this stage's thread when some were, or failed.

    """

    def __init__(self, writer: StoreWriter, committed: Callable[[], None]) -> None:
        self._failures = 0
        self._writer = writer
        self._committed = committed
        self._queue: deque[Captive] = deque()
        self._room = threading.Semaphore(QUEUE_MOST)
        self._unfinished = 0
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crabrt-commit")

    @property
    def epoch(self) -> Epoch:
        """The current one; see the module."""
        return self._failures, self._writer.losses

    def put(self, captive: Captive) -> None:
        """Have it made durable; waits while the queue is full."""
        self._room.acquire()
        with self._lock:
            self._unfinished += 1
            self._queue.append(captive)
        try:
            self._threads.submit(self._run)
        except RuntimeError:  # the interpreter ends, and begins nothing any more
            self._run()

    def sync(self) -> Future[bool]:
        """Make durable what was put for captures to come; whether it is.

        If not, it is known to be lost: it is put again, and what was captured beside it fails.
        """
        try:
            return self._threads.submit(self._sync_ahead)
        except RuntimeError:  # the interpreter ends, and begins nothing any more
            future: Future[bool] = Future()
            future.set_result(self._sync_ahead())
            return future

    def _sync_ahead(self) -> bool:
        try:
            self._writer.sync()
        except Exception:  # noqa: BLE001  whatever it is, the epoch's captures will report it
            self._failures += 1
            return False
        return True

    def drain(self) -> None:
        """Wait until all that was put is durable, or failed."""
        if not self.idle:
            try:
                self._threads.submit(lambda: None).result()
            except RuntimeError:  # the interpreter ends: what nobody begins any more is done here
                self._run()

    @property
    def idle(self) -> bool:
        """Whether all that was put is durable, or failed."""
        with self._lock:
            return self._unfinished == 0

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        self._threads.shutdown(wait=True)

    def _run(self) -> None:
        with self._running:
            with self._lock:
                captives = list(self._queue)
                self._queue.clear()
            if not captives:  # they went along with one before them
                return
            self._room.release(len(captives))
            try:
                self._commit(captives)
            finally:
                with self._lock:
                    self._unfinished -= len(captives)
                for one in captives:
                    if one.alive is not None:
                        one.alive.forget()
                    with contextlib.suppress(Exception):  # the disk is gone: gc keeps too much
                        one.release()
                    if not one.job.durable.done() and one.job.error is None:
                        one.job.fail_durable(StoreUnavailable("it was not made durable"))
                    one.job.release()
        self._committed()

    def _commit(self, captives: list[Captive]) -> None:
        """Never raises: what goes wrong is the captives' fate."""
        captives = [one for each in captives for one in self._with_what_was_alive(each)]
        synced = self._attempt(captives, partial(self._sync_packs, captives))
        if not synced:
            self._failures += 1
        written = [one for one in synced if self._attempt([one], partial(self._write, one))]
        for journal in dict.fromkeys(one.journal for one in written):
            its = [one for one in written if one.journal is journal]
            for durable in self._attempt(its, partial(_sync, journal)):
                durable.job.durable.set_result(None)

    def _with_what_was_alive(self, captive: Captive) -> list[Captive]:
        """The captive with what was alive in the store; none if that failed."""
        alive, whole = captive.alive, [captive]
        if alive is not None:

            def put() -> None:
                with self._writer.commit():
                    entry = alive.put(captive.entry, self._writer)
                whole[0] = dataclasses.replace(captive, entry=entry)

            if not self._attempt([captive], put):
                return []
        return whole

    def _sync_packs(self, captives: list[Captive]) -> None:
        if all(one.epoch == self.epoch for one in captives):
            self._writer.start_over()  # they rest on nothing that was lost before
        self._writer.sync()
        FP_SYNCED()

    def _write(self, captive: Captive) -> None:
        if captive.epoch != self.epoch:
            raise StoreUnavailable("a checkpoint before it, on which it rests, is not durable")
        durable_ms = round((time.perf_counter() - captive.started) * 1e3, 3)
        entry = msgspec.structs.replace(captive.entry, durable_ms=durable_ms)
        captive.journal.append(entry, turn=entry.turn)
        FP_COMMITTED()

    def _attempt(self, captives: list[Captive], step: Callable[[], None]) -> list[Captive]:
        """Take a step for all of them: those that went on, all or none."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  a bug here must not kill the stage; it is reported
            for one in captives:
                one.failed(error)
            return []
        return captives


def _sync(journal: Journal) -> None:
    journal.sync()
    FP_DURABLE()
    if not os.path.exists(journal.path):
        raise StoreUnavailable("the store is gone", where=str(journal.path))
