"""Work in a process of its own: what it gives, the CPU time it takes, and how much memory at most.

A worker runs one function ``module:name`` of this package with JSON arguments, and answers with
JSON. Figures of memory are of that process alone, above what it had when the work began; CPU time
includes the processes that it started and waited for.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from crabrt.errors import CrabError

_ENDING_S = 20.0
TAIL = 2_000
_LOOK_S = 1.0


class WorkFailed(CrabError):
    """A piece of work that a benchmark needs gave an error: its figures would mean nothing."""

    kind = "work-failed"


@dataclass(frozen=True)
class Finished:
    """What came of a piece of work.

    Attributes:
        result: what the function returned.
        cpu_s: user and system time, of its children too.
        start_bytes, peak_bytes: resident memory when the work began, and at most.
    """

    result: dict[str, Any]
    cpu_s: float
    start_bytes: int
    peak_bytes: int


class Link:
    """The worker's side of the conversation."""

    def __init__(self, channel: int) -> None:
        self._channel = os.fdopen(channel, "w", encoding="utf-8")

    def say(self, message: Mapping[str, Any]) -> None:
        """Tell whoever started this."""
        self._channel.write(json.dumps(message) + "\n")
        self._channel.flush()

    def listen(self) -> str:
        """Wait for a line; empty when nobody is there any more."""
        return sys.stdin.readline().rstrip("\n")


Work = Callable[[dict[str, Any], Link], dict[str, Any]]


class Worker:
    """A process that works. Finish or stop it.

    Args:
        function: ``module:name`` of a `Work`.
        arguments: JSON types.
        environ: what it sees; see `environment`.
    """

    def __init__(
        self, function: str, arguments: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self._function = function
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish and stop
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crabrt.bench.apart"],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        _LIVE.add(self)
        self.tell(json.dumps({"function": function, "arguments": arguments}))

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._failed("it is gone")

    def hear(self) -> dict[str, Any]:
        """The next thing it says.

        Raises:
            WorkFailed: it gave an error, or ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._failed(f"it ended with {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        if "failed" in message:
            self._failed(message["failed"])
        return message

    def finish(self) -> Finished:
        """Wait until it is done.

        Raises:
            WorkFailed: it gave an error.
        """
        end = self.hear()["end"]
        self._close_pipes()
        try:
            self._process.wait(_ENDING_S)
        finally:
            self.stop()
        return Finished(**end)

    def stop(self) -> None:
        """End it, if it has not ended; it may clean up."""
        self._close_pipes()
        if self._process.poll() is None:
            self.interrupt()
            try:
                self._process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()
        _LIVE.discard(self)

    def interrupt(self) -> None:
        """Tell it to end, without waiting."""
        self._process.send_signal(signal.SIGINT)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _failed(self, why: str) -> NoReturn:
        self._errors.seek(0)
        tail = self._errors.read().decode("utf-8", "replace")[-TAIL:].strip()
        self.stop()
        last = tail.splitlines()[-1] if tail and "Error" not in why else ""
        raise WorkFailed(": ".join(filter(None, (self._function, why, last))), where=tail or None)


_LIVE: set[Worker] = set()


def interrupt_all() -> None:
    """Tell all workers to end, whichever thread waits for them."""
    for worker in tuple(_LIVE):
        worker.interrupt()


def apart(function: str, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Finished:
    """Do it in a process of its own. Arguments and errors as of `Worker`."""
    worker = Worker(function, arguments, environ)
    try:
        return worker.finish()
    except BaseException:
        worker.stop()
        raise


def environment(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What workers see: no settings of the user's own crabrt, and scratch for temporary files."""
    settings = scratch / "config"
    temporary = scratch / "tmp"
    for path in (settings, temporary):
        path.mkdir(exist_ok=True)
    kept = {name: value for name, value in environ.items() if not name.startswith("CRAB_")}
    return kept | {"XDG_CONFIG_HOME": str(settings), "TMPDIR": str(temporary)}


def memory_bytes(field: str) -> int:
    """Memory of this process, by a field of ``/proc/self/status``: ``VmRSS``, ``VmHWM``."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_s() -> float:
    """CPU time of this process and of the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _end_once(number: int, frame: object) -> NoReturn:
    """The first interrupt ends the work; a second one must not end its cleaning up."""
    del number, frame
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Nobody would hear the result: a worker ends soon after whoever started it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGINT)


def _main() -> None:
    signal.signal(signal.SIGINT, _end_once)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    link = Link(os.dup(1))
    os.dup2(2, 1)  # whatever prints must not break the conversation
    given = json.loads(sys.stdin.readline())
    module, _, name = given["function"].partition(":")
    try:
        work: Work = getattr(importlib.import_module(module), name)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak is counted from here on
        start_bytes, began_s, began = memory_bytes("VmRSS"), cpu_s(), time.perf_counter()
        result = work(given["arguments"], link)
        result.setdefault("wall_s", time.perf_counter() - began)
    except Exception as error:  # noqa: BLE001 - it is told to whoever waits
        traceback.print_exc()
        link.say({"failed": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from None
    end = {
        "result": result,
        "cpu_s": cpu_s() - began_s,
        "start_bytes": start_bytes,
        "peak_bytes": memory_bytes("VmHWM"),
    }
    link.say({"end": end})


if __name__ == "__main__":
    _main()
