"""All processes that a benchmark begins, wherever they go: collected when they end, ended at last.

While it is open, orphans come to this process. Those that end are collected at once, as an init
would: their numbers are needed by those who come back. What is started here for a moment (a worker,
a command) is for its starter to wait for.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crabrt.bench.apart import TAIL, Finished, Worker, WorkFailed
from crabrt.process import subreaper, table
from crabrt.process.family import Identity
from crabrt.process.parking import kill

_POLL_S = 0.003


class Brood:
    """See the module. A context manager.

    Raises:
        WorkFailed: somebody does not end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: set[Identity] = set()
        self._before: set[Identity] = set()
        self._over = threading.Event()
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._holds = False

    def __enter__(self) -> Self:
        self._holds = subreaper.hold()
        self._before = {one.identity for one in table.descendants(os.getpid())}
        self._collector.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.end_all()
        finally:
            self._over.set()
            self._collector.join()
            if self._holds:
                subreaper.release()

    def worker(
        self, function: str, arguments: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Worker:
        """A `Worker`; it is for the caller to finish or stop."""
        with self._lock:
            worker = Worker(function, arguments, environ)
            self._await(worker.pid)
        return worker

    def apart(
        self, function: str, arguments: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Finished:
        """As ``apart.apart``."""
        worker = self.worker(function, arguments, environ)
        try:
            return worker.finish()
        except BaseException:
            worker.stop()
            raise

    def run(self, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        """Run a command to its end.

        Raises:
            WorkFailed: it failed.
        """
        with self._lock, open(log, "wb") as output:
            child = subprocess.Popen(
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._await(child.pid)
        if child.wait():
            said = log.read_text("utf-8", "backslashreplace")[-TAIL:]
            raise WorkFailed(f"{command[0]} ended with {child.returncode}: {said}")

    def _await(self, pid: int) -> None:
        found = table.look(pid)  # ended or not: nobody else waits for it
        if found is not None:
            self._awaited.add(found.identity)

    def end(self, processes: Sequence[Identity]) -> None:
        """End these, and wait until their numbers are free."""
        kill(processes)

    def end_all(self) -> None:
        """End everybody who has begun since this was opened.

        Raises:
            WorkFailed: somebody does not end.
        """
        left = self._begun()
        for _ in range(3):  # one that is killed may leave others
            kill(left)
            left = self._begun()
            if not left:
                return
        raise WorkFailed(f"processes do not end: {', '.join(str(pid) for pid, _ in left)}")

    def _begun(self) -> list[Identity]:
        found = {one.identity for one in table.descendants(os.getpid())}
        return sorted(found - self._before)

    def _collect(self) -> None:
        while not self._over.wait(_POLL_S):
            with contextlib.suppress(ChildProcessError, OSError):
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    self._collect_orphans()

    def _collect_orphans(self) -> None:
        own = os.getpid()
        with self._lock:
            for pid in table.children(own):
                one = table.look(pid)
                if one is None or not one.ended or one.identity in self._awaited:
                    continue
                if one.identity not in self._before and one.parent == own:
                    subreaper.collect([one])
