"""crabrt as it is measured: the parts a run's engine uses, without a loop round them.

The steps are those of ``runtime.checkpoints``, in their order: scan, capture, flush, a `captured`
entry; sync, a `checkpoint` entry, sync. Taking them apart shows what each costs, and what a
checkpoint costs when somebody else already knows which files changed. Where to look is said by an
observer, as in a run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from crabrt.core.entries import Captured, Checkpoint
from crabrt.core.failpoints import ALL
from crabrt.core.ids import ObjectId, new_run_id
from crabrt.inspector import choose
from crabrt.journal import Journal, Lease, run_dir
from crabrt.store import Store
from crabrt.workspace import RestoreReport, Snapshot, Tracker, Workspace, restore

_NO_LIMIT = 1 << 60
_MARK = b"CRAB_RUN=bench"


@dataclass(frozen=True)
class Checkpointed:
    """One checkpoint, in ms.

    Attributes:
        scan_ms: finding out what may have changed, by the observer.
        captured_ms: from the end of the scan until it survives SIGKILL.
        durable_ms: from there until it survives power loss.
        stored_bytes: added to packs; journal_bytes: to the journal.
        snapshot: what was made.
    """

    scan_ms: float
    captured_ms: float
    durable_ms: float
    stored_bytes: int
    journal_bytes: int
    snapshot: Snapshot


class Subject:
    """A workspace, a store of its own, and a journal. A context manager.

    Args:
        tree: the workspace.
        home: the store, made here.
        observer: as in the configuration.

    Attributes:
        looks: how many looks there were, by who really looked.

    Raises:
        Unwatchable: that observer is not allowed here.
    """

    def __init__(self, tree: Path, home: Path, observer: str = "scan") -> None:
        self.home = home
        self.looks = Counter[str]()
        self.store = Store.open(home, create=True)
        self.writer = self.store.writer()
        self.workspace = Workspace.open(tree, home)
        self.tracker = Tracker(self.workspace, huge_files=_NO_LIMIT, huge_bytes=_NO_LIMIT)
        self._observer = choose(observer, self.workspace.path, home / "observers", mark=_MARK)
        directory = run_dir(home, new_run_id("bench"))
        self._lease = Lease.acquire(directory)
        self._journal = Journal.open(directory, self._lease, create=True)
        self._turn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._observer.close()
        self._journal.close()
        self._lease.release()
        self.writer.close()
        self.store.close()

    @property
    def root(self) -> ObjectId:
        """Of the last checkpoint."""
        assert self.tracker.root is not None
        return self.tracker.root

    def checkpoint(self) -> Checkpointed:
        """One checkpoint of what is there now."""
        began = time.perf_counter()
        looked = self._observer.look(self.tracker)
        scanned = time.perf_counter()
        stored, written = self.writer.bytes_stored, self._journal.position.offset
        snapshot = self.tracker.capture(looked.scan, self.writer)
        self._observer.settled()
        self.writer.flush()
        turn, journal = self._turn, self._journal
        journal.append(Captured(turn, 0, snapshot.root, journal.seq), turn=turn)
        captured = time.perf_counter()
        self.writer.sync()
        journal.append(Checkpoint(turn, 0, snapshot.root, journal.seq), turn=turn)
        journal.sync()
        durable = time.perf_counter()
        self.tracker.save()
        self.writer.catalogue()
        self._turn += 1
        self.looks[looked.observer] += 1
        return Checkpointed(
            scan_ms=(scanned - began) * 1e3,
            captured_ms=(captured - scanned) * 1e3,
            durable_ms=(durable - captured) * 1e3,
            stored_bytes=self.writer.bytes_stored - stored,
            journal_bytes=max(0, journal.position.offset - written),
            snapshot=snapshot,
        )

    def nothing_ms(self) -> float:
        """How long it takes to decide that nothing changed.

        Raises:
            RuntimeError: something did.
        """
        before = self.tracker.root
        began = time.perf_counter()
        looked = self._observer.look(self.tracker)
        if not looked.scan.clean:  # files so fresh that stamps prove nothing are read
            self.tracker.capture(looked.scan, self.writer)
        took_ms = (time.perf_counter() - began) * 1e3
        self._observer.settled()
        self.looks[looked.observer] += 1
        if self.tracker.root != before:
            raise RuntimeError("the workspace was not left alone")
        return took_ms

    def restore(self, target: ObjectId) -> tuple[float, float, RestoreReport]:
        """Put the workspace to `target`: ms until its plan is logged, ms after that, the report."""
        with _mark("restore.begun") as marks:
            began = time.perf_counter()
            report = restore(
                self.workspace,
                self.writer,
                target,
                base=None,
                tracker=self.tracker,
            )
            ended = time.perf_counter()
        planned = marks[0] if marks else ended
        return (planned - began) * 1e3, (ended - planned) * 1e3, report


@contextmanager
def _mark(failpoint: str) -> Iterator[list[float]]:
    """The moments at which a failpoint is passed: phases without a clock in what is measured."""
    marks: list[float] = []
    point = ALL[failpoint]
    before = point.action
    point.action = lambda: marks.append(time.perf_counter())
    try:
        yield marks
    finally:
        point.action = before
