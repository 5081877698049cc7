"""The timeline of one run, kept up while the run goes on: reads its journal, and nothing else.

It takes no lock, writes nothing, and asks nothing of the process it looks at. The beginning comes
from the run index as it is on disk (checked, but not brought up to date), what follows from the
journal, in slices: the first state is there at once, however long the journal.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from crabrt.core.ids import RunId
from crabrt.errors import CrabError, NotFound, StoreUnavailable
from crabrt.journal import PositionLost, Record, RunIndex, lease_holder, read_journal, read_marks
from crabrt.journal.database import Rotten
from crabrt.journal.layout import inbox_dir, journal_dir, run_dir
from crabrt.journal.lease import last_words
from crabrt.journal.repairing import whole_records
from crabrt.journal.restores import RestoreLog
from crabrt.journal.rows import Problem
from crabrt.journal.views import DAMAGED, FORKED, OPEN, RUNNING, live_status
from crabrt.journal.watermarks import Seen, look
from crabrt.store.format import read_format
from crabrt.timeline.folding import Folding
from crabrt.timeline.marks import (
    Mark,
    marks_of_relatives,
    marks_of_restores,
    workspace_state,
)
from crabrt.timeline.timeline import GONE, Reading, Timeline
from crabrt.timeline.watching import SLOW_S, Watch

PACE_S = 0.05
"""A run is looked at no more often, however fast it writes: that is the most a state is late."""

SLICE_S = 0.05
"""How long one `RunFeed.poll` reads at most."""


class RunFeed:
    """Follows one run. One thread polls (or goes through `follow`); any may call `stop`.

    Attributes:
        home: the store.
        run: the run's id.
        timeline: the latest state; replaced, never changed.
    """

    def __init__(self, home: Path, run: str, *, watch: Watch | None = None) -> None:
        """Nothing is read yet.

        Args:
            home: the store.
            run: the id of a run (names and prefixes are `RunIndex.find`'s to resolve).
            watch: what to wait with.

        Raises:
            UsageError: `run` could not be a run id.
        """
        self.home = home
        self.run = run
        self.timeline = Timeline(run)
        self._directory = run_dir(home, RunId(run))
        self._watch = watch or Watch()
        self._stopped = threading.Event()
        self._folding: Folding | None = None
        self._records: Iterator[Record] | None = None
        self._seen: Seen | None = None
        self._fed = 0
        self._broken: dict[str, Problem] = {}
        self._restores_seen: tuple[int, int, int] | None = None
        self._runs_seen: tuple[int, int, int] | None = None
        self._runs_changed = self._relatives_read = -SLOW_S
        self._shown: object = None

    # -- polling -----------------------------------------------------------------------------

    def poll(self, *, slice_s: float = SLICE_S) -> Timeline | None:
        """Take in what is new, for at most about `slice_s`; the new state, None if it is the same.

        While `Timeline.reading` is set there is more to read: poll again at once. Nothing that is
        wrong with the run is raised: it is in the state.
        """
        until = time.monotonic() + slice_s
        if not self._is_understood():
            return self._refuse()
        anew = self._folding is None
        folding = self._folding or self._begin()
        self._watch.watch(self._directories())
        held = self._is_held()  # before the journal is read: who let go had said everything
        seen = look(self._directory)
        if seen is None and self._records is not None:
            self._stop_reading()
        if seen is not None and (seen != self._seen or self._records is not None):
            if anew or self._seen is None or seen.inbox != self._seen.inbox:
                self._read_inbox(folding)
            self._seen = seen
            folding = self._read(until)
        self._look_for_restores(folding)
        if not anew and self._records is None:
            self._look_for_relatives(folding)
        folding.status = self._status(folding, held=held, present=seen is not None)
        folding.problems = tuple(self._broken.values())
        shown = (self._fed, folding.status, folding.problems, folding.marks,
                 folding.relatives, folding.restores, self._records is None)  # fmt: skip
        if shown == self._shown:
            return None
        self._shown = shown
        self.timeline = folding.timeline(
            reading=self._reading(folding), revision=self.timeline.revision + 1
        )
        return self.timeline

    def read_all(self) -> Timeline:
        """Poll until everything that is there now has been read; the state then."""
        self.poll()
        while self.timeline.reading is not None:
            self.poll()
        self.poll()
        return self.timeline

    def wait(self, timeout_s: float = SLOW_S) -> bool:
        """Wait until the run may have changed, somebody called `stop`, or the time is over.

        Returns:
            Whether it is worth polling now.
        """
        return self._watch.wait(timeout_s)

    def follow(self) -> Iterator[Timeline]:
        """Every new state, as the run goes on; the first at once. It ends when `stop` is called.

        For a thread of its own. Waiting costs nothing; what no file tells (the run's process died
        without a word, a directory on another machine) is seen after `SLOW_S`.
        """
        while not self._stopped.is_set():
            polled = time.monotonic()
            state = self.poll()
            if state is not None:
                yield state
            if self.timeline.reading is None and not self._stopped.is_set():
                self.wait(SLOW_S)
                self._stopped.wait(max(0.0, PACE_S - (time.monotonic() - polled)))

    def stop(self) -> None:
        """End `follow` and `wait`, from any thread."""
        self._stopped.set()
        self._watch.wake()

    def close(self) -> None:
        """Let go of everything; for the thread that polls, after the last poll."""
        self.stop()
        self._records = None
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- reading -----------------------------------------------------------------------------

    def _begin(self) -> Folding:
        """Go on from where the run index stands, if it knows the run."""
        folded = None
        relatives: list[Mark] = []
        # A cache: without it the journal is read from its beginning.
        with contextlib.suppress(CrabError), RunIndex.open(self.home) as index:
            relatives = marks_of_relatives(self.run, index.runs())
            folded = index.folded(self.run)
        try:
            self._folding = Folding(self.run, folded)
        except Rotten:
            self._folding = Folding(self.run)
        self._folding.relatives = relatives
        return self._folding

    def _anew(self, old: Folding) -> Folding:
        """What was read is no longer the run's: only what stands beside the journal is kept."""
        folding = Folding(self.run)
        folding.marks, folding.relatives = old.marks, old.relatives
        folding.restores = old.restores
        return folding

    def _read(self, until: float) -> Folding:
        """Read on until the end or `until`; from the beginning if what was read is not there."""
        assert self._folding is not None
        self._broken.pop("journal", None)
        try:
            if self._records is None:
                after = self._folding.after
                self._records = (
                    whole_records(self._directory)
                    if after is None
                    else read_journal(self._directory, after=after)
                )
            self._fed += self._folding.feed(self._slice(self._records, until))
        except PositionLost:
            self._fed += 1
            self._folding, self._records = self._anew(self._folding), None
            return self._read(until)
        except NotFound as error:
            self._records = None
            if self._folding.after is not None and os.path.isdir(self._directory):
                self._broken["journal"] = Problem.of(error)  # it had one; else it has not begun
        except CrabError as error:
            self._records = None
            self._broken["journal"] = Problem.of(error)
            if isinstance(error, StoreUnavailable):
                self._seen = None  # look again, even if nothing changes
        return self._folding

    def _stop_reading(self) -> None:
        """The journal is not there any more, or not now: it is looked for again, as if anew."""
        self._records = self._seen = None
        lost = NotFound("the journal went away while it was read", where=self.run)
        self._broken["journal"] = Problem.of(lost)

    def _slice(self, records: Iterator[Record], until: float) -> Iterator[Record]:
        for record in records:
            yield record
            if time.monotonic() >= until:
                return
        self._records = None

    def _read_inbox(self, folding: Folding) -> None:
        self._broken.pop("inbox", None)
        try:
            folding.take_marks(read_marks(self._directory))
        except CrabError as error:
            self._broken["inbox"] = Problem.of(error)

    # -- what stands beside the journal ------------------------------------------------------

    def _look_for_relatives(self, folding: Folding) -> None:
        """Forks made from this run, if there are new runs.

        A new run has a directory before it has a journal, so there is a second look, later.
        """
        runs, now = _identity(self.home / "runs"), time.monotonic()
        changed = runs != self._runs_seen
        if changed:
            self._runs_seen, self._runs_changed = runs, now
        again = self._relatives_read < self._runs_changed + SLOW_S <= now
        if not (changed or again):
            return
        self._relatives_read = now
        self._broken.pop("runs", None)
        try:
            with RunIndex.open(self.home) as index:
                index.refresh()
                folding.relatives = marks_of_relatives(self.run, index.runs())
        except NotFound:
            return  # the store is gone, and the run with it
        except CrabError as error:
            self._broken["runs"] = Problem.of(error)

    def _look_for_restores(self, folding: Folding) -> None:
        """What people did to the run's workspace."""
        state_dir = workspace_state(self.home, folding.view)
        if state_dir is None:
            return
        log = RestoreLog(state_dir)
        seen = _identity(log.path)
        if seen != self._restores_seen:
            self._restores_seen = seen
            self._broken.pop("restores", None)
            try:
                folding.restores = marks_of_restores(log.records())
            except CrabError as error:
                self._broken["restores"] = Problem.of(error)

    def _is_understood(self) -> bool:
        """Whether this version knows the store's format."""
        if self._folding is not None:
            return True
        self._broken.pop("store", None)
        try:
            read_format(self.home)
        except NotFound:  # the journals of such a directory are all there is
            return True
        except CrabError as error:
            self._broken["store"] = Problem.of(error)
            return False
        return True

    def _refuse(self) -> Timeline | None:
        """The state of a run in a store that is not understood."""
        problems = tuple(self._broken.values())
        if problems == self.timeline.problems:
            return None
        revision = self.timeline.revision + 1
        self.timeline = Timeline(self.run, state=DAMAGED, problems=problems, revision=revision)
        return self.timeline

    def _is_held(self) -> bool:
        self._broken.pop("lease", None)
        try:
            return lease_holder(self._directory) is not None
        except CrabError as error:
            self._broken["lease"] = Problem.of(error)
            return False

    def _status(self, folding: Folding, *, held: bool, present: bool) -> str:
        view = folding.view
        if "lease" in self._broken:  # nobody may look, so nobody knows whether it is there
            return DAMAGED
        if not present and not os.path.isdir(self._directory):
            return GONE
        if "journal" in self._broken:
            return DAMAGED
        if self._records is not None or not view.run:
            return RUNNING if held else ""
        if view.status not in (OPEN, FORKED):
            return view.status
        words = ""
        if not held:
            with contextlib.suppress(CrabError):  # then it is told as crashed
                words = last_words(self._directory)
        return live_status(view.status, held=held, last_words=words)

    def _reading(self, folding: Folding) -> Reading | None:
        if self._records is None or self._seen is None:
            return None
        sizes = {name: size for name, (size, _, _) in self._seen.segments.items()}
        done, after = 0, folding.after
        if after is not None:
            name = f"{after.segment:08d}-{after.epoch:08d}.seg"
            before = sum(size for other, size in sizes.items() if other < name)
            done = before + after.offset
        return Reading(done, sum(sizes.values()))

    def _directories(self) -> list[Path]:
        found = [
            self._directory,
            journal_dir(self._directory),
            inbox_dir(self._directory),
            self.home / "runs",
        ]
        folding = self._folding
        state_dir = None if folding is None else workspace_state(self.home, folding.view)
        return found if state_dir is None else [*found, state_dir]


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
