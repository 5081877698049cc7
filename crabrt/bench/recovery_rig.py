"""One attempt at a task: the agent is started, killed with all it has begun, and started again.

Whatever an attempt begins is found again: it descends from this process, which takes in orphans
while a rig is open, or carries the rig's mark in its environment. Every wait has a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from crabrt.bench.apart import TAIL, WorkFailed
from crabrt.process import subreaper, table
from crabrt.process.family import Identity
from crabrt.testing.tasks import Task, search_path

RUN_LIMIT_S: Final = 240.0
"""How long one run of a task may take, however slow the machine."""

_GONE_LIMIT_S: Final = 20.0
_POLL_S: Final = 0.003
_MARK: Final = "RECOVERY_BENCH"
_PORTS: Final = range(20_000, 30_000)
"""Below those that the kernel gives to clients."""


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: as `subprocess` gives it; None: it was not done in time, and was killed.
        output, errors: what it wrote.
    """

    status: int | None
    output: str
    errors: str

    def result(self, what: str) -> Any:
        """What it printed, as JSON.

        Raises:
            WorkFailed: it failed.
        """
        if self.status != 0:
            last = self.errors.strip().splitlines()[-1:] or ["no word why"]
            how = "was not done in time" if self.status is None else f"ended with {self.status}"
            raise WorkFailed(f"{what} {how}: {last[0]}", where=self.errors[-TAIL:])
        return json.loads(self.output.splitlines()[-1])


class Rig:
    """A workspace, a store, and whatever is begun there. A context manager.

    Args:
        ground: a directory to be, for all of it; gone afterwards.
        task: what the agent does.
        environ: what it sees, besides what tasks are promised.
        port: that nobody else uses.

    Attributes:
        workspace, home: the agent's directory, and its store.
        chat: where it keeps its messages, if it does that itself.
        began: when it was started last (``time.monotonic``, in s).
    """

    def __init__(self, ground: Path, task: Task, environ: Mapping[str, str], port: int) -> None:
        self.ground, self.task = ground, task
        self.workspace, self.home = ground / "ws", ground / "home"
        self.notes, self.chat = ground / "notes", ground / "chat"
        self._mark = f"{_MARK}={os.getpid()}-{ground.name}"
        name, _, value = self._mark.partition("=")
        self.environ = {
            **environ,
            name: value,
            "PATH": search_path(environ.get("PATH", os.defpath)),
            "PORT": str(port),
            "PY": sys.executable,
            "PYTHONDONTWRITEBYTECODE": "1",
            "CRAB_HOME": str(self.home),
            "CRAB_NETWORK_OBSERVER": "off",
        }
        self._before: set[Identity] = set()
        self._holds = False
        self._started = 0
        self.began = 0.0

    def __enter__(self) -> Self:
        self._holds = subreaper.hold()
        self._before = {one.identity for one in table.descendants(os.getpid())}
        self.fresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.sweep()
        finally:
            if self._holds:
                subreaper.release()
            shutil.rmtree(self.ground, ignore_errors=True)

    def fresh(self) -> None:
        """The workspace as the task begins with it, no store, nobody alive."""
        self.sweep()
        shutil.rmtree(self.ground, ignore_errors=True)
        self.workspace.mkdir(parents=True)
        for path, text in self.task.files.items():
            file = self.workspace / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")

    def agent(
        self, verb: str, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the agent, in a session of its own."""
        module = [sys.executable, "-m", "crabrt.testing.tasks.agent"]
        where = [self.task.name, str(self.workspace), str(self.notes)]
        return self.start([*module, verb, *where, *words], env)

    def start(
        self, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program, what it prints into files: nobody it leaves behind holds us up."""
        self.notes.unlink(missing_ok=True)
        with (
            open(self.ground / "output", "wb") as output,
            open(self.ground / "errors", "wb") as errors,
        ):
            started = subprocess.Popen(
                command,
                env={**self.environ, **(env or {})},
                cwd=self.ground,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self.began = time.monotonic()
        self._started = started.pid  # whose end is for `subprocess` to collect
        return started

    def finish(self, process: subprocess.Popen[bytes], limit_s: float = RUN_LIMIT_S) -> Ended:
        """Wait until it has ended; what it took into its care is collected meanwhile."""
        if not self._wait(lambda: process.poll() is not None, limit_s):
            self.kill(process)
            return self._ended(None)
        return self._ended(process.returncode)

    def kill(self, process: subprocess.Popen[bytes]) -> bool:
        """SIGKILL for it and all that it has begun; whether it was still at work.

        Itself first: so it cannot see the others end, and take that for what a tool did.
        """
        was_at_work = process.poll() is None
        process.kill()
        process.wait()
        self.sweep()
        return was_at_work

    def kill_after(self, process: subprocess.Popen[bytes], note: str, delay_s: float) -> bool:
        """`kill` it so long after it has noted `note`; False if it had ended by then."""
        self._wait(lambda: process.poll() is not None or self.noted(note) is not None, RUN_LIMIT_S)
        began = self.noted(note)
        if began is not None:
            rest_s = max(0.0, began + delay_s - time.monotonic())
            self._wait(lambda: process.poll() is not None, rest_s)
        return self.kill(process)

    def noted(self, *what: str) -> float | None:
        """When the agent first noted one of `what` (``time.monotonic``, in s); None: not yet."""
        with contextlib.suppress(FileNotFoundError):
            for line in self.notes.read_text("utf-8").splitlines():
                when, _, said = line.partition(" ")
                if said in what:
                    return float(when)
        return None

    def sweep(self) -> None:
        """End and collect all that was begun here.

        Raises:
            WorkFailed: somebody cannot be ended.
        """
        if not self._wait(self._end_all, _GONE_LIMIT_S):
            left = ", ".join(str(pid) for pid, _ in self._begun())
            raise WorkFailed(f"processes of {self.task.name} do not end: {left}")

    def _wait(self, until: Callable[[], bool], limit_s: float) -> bool:
        end = time.monotonic() + limit_s
        while not until():
            if time.monotonic() > end:
                return False
            self._collect()
            time.sleep(_POLL_S)
        return True

    def _begun(self) -> list[Identity]:
        found = {one.identity for one in table.descendants(os.getpid())} - self._before
        for name in os.listdir("/proc"):
            if name.isdecimal() and self._is_marked(int(name)):
                one = table.look(int(name))
                if one is not None and not one.ended:
                    found.add(one.identity)
        return sorted(found)

    def _is_marked(self, pid: int) -> bool:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            return self._mark.encode() in file.read().split(b"\0")
        return False

    def _end_all(self) -> bool:
        begun = self._begun()
        for pid, _ in begun:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._collect()
        return not begun

    def _collect(self) -> None:
        """Orphans that have ended: their numbers are needed by those who come back."""
        own = os.getpid()
        for one in table.descendants(own):
            is_ours = one.identity not in self._before and one.parent == own
            if one.ended and is_ours and one.pid != self._started:
                subreaper.collect([one])

    def _ended(self, status: int | None) -> Ended:
        output, errors = (
            (self.ground / name).read_text("utf-8", "backslashreplace")
            for name in ("output", "errors")
        )
        return Ended(status, output, errors)


def free_port(rng: random.Random) -> int:
    """A port that nobody listens on now.

    Raises:
        WorkFailed: there is none.
    """
    for _ in range(200):
        port = rng.choice(_PORTS)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise WorkFailed("no port is free")
