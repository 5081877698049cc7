"""Real deaths: a child that SIGKILLs itself at a named failpoint, or is killed from outside.

Run as a program this module is the child's launcher::

    python -m crabrt.testing.crash --kill-at pack.synced:3 --mark FILE script.py ARG...
    python -m crabrt.testing.crash --count FILE script.py ARG...

What to arm comes by arguments, so nothing of it reaches the processes that the script starts. Just
before it kills, the launcher writes a mark, so that a test can tell this death from any other; the
classes here start it and check that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from crabrt.core import failpoints

StrPath = str | os.PathLike[str]

_ORPHANS_S = 1.0
_FLOORS = ("store", "journal", "workspace", "inspector", "operations", "runtime")


class WrongDeath(AssertionError):
    """A child did not die as it was meant to: the test proves nothing."""


@dataclass(frozen=True)
class Died:
    """How a child ended.

    Attributes:
        returncode: as `subprocess` gives it: -9 after SIGKILL.
        stdout, stderr: what it wrote until then.
        hit: the mark of the armed failpoint, ``NAME:HIT``, or empty when it was not reached.
    """

    returncode: int
    stdout: str
    stderr: str
    hit: str = ""

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.returncode == -signal.SIGKILL


class Child:
    """A Python script in a process group of its own, to be killed with all that it started there.

    Args:
        script: path of the script.
        args: its arguments.
        before: arguments for this module's launcher; empty runs the script plainly.
        cwd: where it runs.
    """

    def __init__(
        self,
        script: StrPath,
        args: Sequence[StrPath] = (),
        *,
        before: Sequence[StrPath] = (),
        cwd: StrPath | None = None,
    ) -> None:
        launcher = ["-m", "crabrt.testing.crash", *before] if before else []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, *launcher, script, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._looked_at = 0
        self._news = threading.Condition()
        # Drained all the time: a child that blocks on a full pipe would never reach its end.
        self._drain = threading.Thread(target=self._read_lines, daemon=True)
        self._drain.start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.decode(errors="replace"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, text: str) -> str:
        """Wait for the next line of output that contains `text`; that line.

        Raises:
            WrongDeath: it ended without writing one.
        """
        with self._news:
            while True:
                while self._looked_at < len(self._lines):
                    line = self._lines[self._looked_at]
                    self._looked_at += 1
                    if text in line:
                        return line
                if self._process.poll() is not None and not self._drain.is_alive():
                    break
                self._news.wait(timeout=0.1)
        died = self.wait()
        raise WrongDeath(f"never wrote {text!r}, ended with {died.returncode}:\n{died.stderr}")

    def kill(self) -> Died:
        """SIGKILL its whole process group, now.

        Raises:
            WrongDeath: it had ended before.
        """
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        died = self.wait()
        if not died.killed:
            raise WrongDeath(f"ended before it was killed, with {died.returncode}:\n{died.stderr}")
        return died

    def kill_within(self, longest_s: float, rng: random.Random) -> Died | None:
        """SIGKILL its group at a moment drawn from [0, `longest_s`); None if it had ended."""
        try:
            self._process.wait(timeout=rng.random() * longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
        died = self.wait()
        return died if died.killed else None

    def wait(self) -> Died:
        """Wait for its end; how it ended."""
        self._process.wait()
        # What it started may outlive it and hold its output open; that output is not waited for.
        self._drain.join(_ORPHANS_S)
        self._errors.seek(0)
        stderr = self._errors.read().decode(errors="replace")
        with self._news:
            return Died(self._process.returncode, "".join(self._lines), stderr)

    def close(self) -> None:
        """Kill what is left of its process group, and wait."""
        # Nothing is left: that is what was wanted.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join(_ORPHANS_S)
        if self._process.stdout is not None and not self._drain.is_alive():
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def kill_at(
    failpoint: str,
    hit: int,
    script: StrPath,
    args: Sequence[StrPath] = (),
    *,
    mark: StrPath,
    cwd: StrPath | None = None,
) -> Died:
    """Run `script` in a child that dies by its own SIGKILL at the `hit`-th hit of `failpoint`.

    Args:
        failpoint: its name.
        hit: counted from 1, over all threads.
        script: path of the script.
        args: its arguments.
        mark: a file to be, which the child writes just before it dies.
        cwd: where it runs.

    Raises:
        WrongDeath: it died otherwise, or not at all.
    """
    wanted = f"{failpoint}:{hit}"
    with Child(script, args, before=("--kill-at", wanted, "--mark", mark), cwd=cwd) as child:
        died = child.wait()
    if not died.killed or not os.path.exists(mark):
        raise WrongDeath(f"{wanted} was not hit; ended with {died.returncode}:\n{died.stderr}")
    with open(mark, encoding="utf-8") as file:
        return Died(died.returncode, died.stdout, died.stderr, hit=file.read())


def count_hits(
    script: StrPath, args: Sequence[StrPath] = (), *, into: StrPath, cwd: StrPath | None = None
) -> dict[str, int]:
    """Run `script` undisturbed; how often each declared failpoint was hit (0 included).

    Args:
        script: path of the script.
        args: its arguments.
        into: a file to be, for the tally.
        cwd: where it runs.

    Raises:
        WrongDeath: the script failed.
    """
    with Child(script, args, before=("--count", into), cwd=cwd) as child:
        died = child.wait()
    if died.returncode != 0:
        raise WrongDeath(f"ended with {died.returncode}:\n{died.stderr}")
    with open(into, encoding="utf-8") as file:
        return {name: n - 1 for name, n in Counter(file.read().split()).items()}


def declared() -> dict[str, failpoints.Failpoint]:
    """Every failpoint of crabrt: all modules of the floors that declare some are imported."""
    for floor in _FLOORS:
        package = importlib.import_module(f"crabrt.{floor}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return failpoints.ALL


def arm(name: str, hit: int, die: Callable[[], None]) -> None:
    """Have `die` called at the `hit`-th hit of a failpoint, in this process.

    Raises:
        KeyError: there is no such failpoint.
        ValueError: `hit` is below 1.
    """
    if hit < 1:
        raise ValueError("hits are counted from 1")
    remaining = iter(range(hit - 1, -1, -1))
    lock = threading.Lock()

    def count_down() -> None:
        with lock:
            if next(remaining, -1) == 0:
                die()

    failpoints.ALL[name].action = count_down


def _die_marked(mark: str, text: str) -> None:
    with open(mark, "w", encoding="utf-8") as file:
        file.write(text)
    os.kill(os.getpid(), signal.SIGKILL)


def _count_into(path: str) -> None:
    # A line a hit, written at once and appended: it survives however the script ends.
    tally = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def writer(line: bytes) -> Callable[[], None]:
        def write() -> None:
            os.write(tally, line)

        return write

    for point in declared().values():
        point.action = writer(f"{point.name}\n".encode())
        point.action()  # once for being declared


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m crabrt.testing.crash")
    parser.add_argument("--kill-at", metavar="NAME:HIT")
    parser.add_argument("--mark", metavar="FILE")
    parser.add_argument("--count", metavar="FILE")
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.count:
        _count_into(given.count)
    if given.kill_at:
        name, _, hit = given.kill_at.rpartition(":")
        declared()
        arm(name, int(hit), lambda: _die_marked(given.mark, given.kill_at))
    sys.argv = [given.script, *given.args]
    sys.path[0] = os.path.dirname(os.path.abspath(given.script))
    runpy.run_path(given.script, run_name="__main__")


if __name__ == "__main__":
    _main()
