"""The list of runs, kept up: from the run index, which costs a few stats for a run that is still.

The first state is what the index had on disk, so that there is one at once; the next one is up to
date. Live runs are looked at every second, and new ones are told by their directory; how often all
others are depends on how long that takes, so that thousands of them keep no processor busy.
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

from crabrt.errors import CrabError, NotFound
from crabrt.journal import RunIndex, RunRow
from crabrt.journal.rows import Problem
from crabrt.journal.views import TurnView
from crabrt.store.format import read_format
from crabrt.timeline.runs import RunItem, Runs
from crabrt.timeline.watching import SLOW_S, Watch

_PACE_S = 0.2
_SHARE = 0.01
"""Of one processor, at most, for looking."""


class RunsFeed:
    """Follows the runs of a store. One thread polls (or goes through `follow`); any may `stop`.

    Attributes:
        home: the store.
        runs: the latest state; replaced, never changed.
    """

    def __init__(self, home: Path, *, watch: Watch | None = None) -> None:
        """Nothing is read yet. `watch`: what to wait with."""
        self.home = home
        self.runs = Runs()
        self._watch = watch or Watch()
        self._stopped = threading.Event()
        self._index: RunIndex | None = None
        self._due = 0.0
        self._directory: tuple[int, int] | None = None
        self._latest: dict[str, tuple[object, TurnView | None]] = {}

    def poll(self) -> Runs | None:
        """Look again; the new state, None if it is the same.

        The first call does not bring the index up to date, which may take long; the next one does.
        Nothing is raised that is wrong with the store: it is in the state.
        """
        items, problem = self.runs.items, None
        try:
            read_format(self.home)
            self._watch.watch([self.home / "runs"])
            items = self._items()
        except CrabError as error:
            problem = Problem.of(error)
            self._close_index()
        if (items, problem) == (self.runs.items, self.runs.problem) and self.runs.revision:
            return None
        self.runs = Runs(items, problem, self.runs.revision + 1)
        return self.runs

    def wait(self, timeout_s: float = SLOW_S) -> bool:
        """Wait until there may be a new run, `stop` was called, or the time is over."""
        return self._watch.wait(timeout_s)

    def follow(self) -> Iterator[Runs]:
        """Every new state; the first at once. It ends when `stop` is called. For a thread."""
        while not self._stopped.is_set():
            polled, first = time.monotonic(), self._index is None
            state = self.poll()
            if state is not None:
                yield state
            if first and self._index is not None:
                continue
            self.wait()
            self._stopped.wait(max(0.0, polled + _PACE_S - time.monotonic()))

    def stop(self) -> None:
        """End `follow` and `wait`, from any thread."""
        self._stopped.set()
        self._watch.wake()

    def close(self) -> None:
        """Let go of everything; for the thread that polls, after the last poll."""
        self.stop()
        self._close_index()
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

    def _items(self) -> tuple[RunItem, ...]:
        index = self._index
        if index is None:
            index = self._index = RunIndex.open(self.home)
            self._due, rows = 0.0, index.runs()
        elif self._is_due():
            began = time.thread_time()
            index.refresh()
            rows = index.runs()
            self._due = time.monotonic() + (time.thread_time() - began) / _SHARE
        else:
            rows = self._with_live_ones_anew(index)
        items = tuple(RunItem(row, self._newest(index, row)) for row in rows)
        self._latest = {row.run: self._latest[row.run] for row in rows}
        return items

    def _is_due(self) -> bool:
        """Whether it is time to look at all runs: some came or went, or long enough passed."""
        try:
            status = os.stat(self.home / "runs")
            seen = (status.st_ino, status.st_mtime_ns)
        except OSError:
            seen = None  # what is wrong with it, the index tells
        changed, self._directory = seen != self._directory, seen
        return changed or time.monotonic() >= self._due

    def _with_live_ones_anew(self, index: RunIndex) -> list[RunRow]:
        """The runs as they were, but for those somebody works on."""
        live = {item.run for item in self.runs.items if item.live}
        if live:
            index.refresh(live)
        rows = []
        for item in self.runs.items:
            with contextlib.suppress(NotFound):  # it was deleted just now
                rows.append(index.run(item.run) if item.live else item.row)
        return rows

    def _newest(self, index: RunIndex, row: RunRow) -> TurnView | None:
        """The latest turn of a run; read again only if the run has a new entry or a new mark."""
        at = (row.updated_ns, row.turns, row.marks)
        known = self._latest.get(row.run)
        if known is None or known[0] != at:
            found = index.turns(row.run, row.turns, row.turns)
            known = self._latest[row.run] = (at, found[-1] if found else None)
        return known[1]

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
