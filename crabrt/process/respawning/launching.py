"""The launcher at work: what it tells of the program that it starts, with a limit on every wait."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Final, Self

from crabrt.errors import CrabError
from crabrt.process import claims, sockets, table
from crabrt.process.family import Identity

LIMIT_S: Final = 15.0
"""How long it may take until a program listens."""
_LOOKED_AT_S: Final = 0.5
"""How long one that listens nowhere is looked at, for whether it ends at once."""
_GOES_S: Final = 5.0
_POLL_S: Final = 0.01
_ANSWER_MOST: Final = 1 << 16
_LAUNCHER: Final = Path(__file__).with_name("launcher.py")


class NotStarted(CrabError):
    """A process could not be started again; the message says why."""

    kind: ClassVar[str] = "not-started"


class Launched:
    """A launcher at work. As a context manager: leaving it leaves alone what it started."""

    def __init__(self, order: dict[str, Any]) -> None:
        if not sys.executable:
            raise NotStarted("there is no Python interpreter to start it with")
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(_LAUNCHER)]
        try:
            self._child = claims.helper(
                lambda: subprocess.Popen(
                    command,
                    cwd="/",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
        except OSError as error:
            raise NotStarted(f"{sys.executable} cannot be started: {error.strerror}") from error
        self._order = order
        self._buffer = b""
        self._top = 0
        self._ended: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stdin, stdout = _both(self._child)
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        try:
            self._child.wait(_GOES_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        stdout.close()

    def started(self) -> tuple[int, list[str]]:
        """Its number, and what it lacks.

        Raises:
            NotStarted: it could not be.
        """
        until = time.monotonic() + LIMIT_S
        self._ask(json.dumps(self._order).encode() + b"\n", until)
        lost: list[str] = []
        while True:
            answer = self._answer(until)
            match answer:
                case ["started", int(pid)]:
                    self._top = pid
                    return pid, lost
                case ["lost", str(text)]:
                    lost.append(text)
                case ["failed", str(step), int(number)]:
                    raise NotStarted(self._failed(step, number))
                case _:
                    raise NotStarted("the program that starts it gave no answer")

    def _ask(self, order: bytes, until: float) -> None:
        """Hand over the order; its answer says what is wrong, or its silence."""
        stdin, _ = _both(self._child)
        os.set_blocking(stdin.fileno(), False)
        with contextlib.suppress(BrokenPipeError):
            while order and select.select([], [stdin], [], max(0.0, until - time.monotonic()))[1]:
                order = order[os.write(stdin.fileno(), order) :]

    def _failed(self, step: str, number: int) -> str:
        about = {"execute it": "program", "enter its directory": "directory"}.get(step)
        where = f" {self._order[about]}" if about is not None else ""
        return f"cannot {step}{where}: {os.strerror(number)}"

    def wait(self, listened: Sequence[str]) -> tuple[tuple[Identity, ...], tuple[str, ...]]:
        """Wait until what was started listens: who that is, and where.

        One that listens at as many places as before, but at others, is waited for no longer.

        Raises:
            NotStarted: all of it has ended.
        """
        began = time.monotonic()
        limit_s = LIMIT_S if listened else _LOOKED_AT_S
        while True:
            self._hear()
            alive = [one for one in table.descendants(self._child.pid) if not one.ended]
            if not alive:
                raise NotStarted(self._how_it_ended())
            listens = tuple(dict.fromkeys(at for one in alive for at in sockets.listens(one.pid)))
            is_there = listened and (set(listened) <= set(listens) or len(listens) >= len(listened))
            if is_there or time.monotonic() - began > limit_s:
                return tuple(one.identity for one in alive), listens
            time.sleep(_POLL_S)

    def _how_it_ended(self) -> str:
        until = time.monotonic() + _GOES_S
        while self._top not in self._ended and time.monotonic() < until:
            if not self._hear():
                time.sleep(_POLL_S)
        status = self._ended.get(self._top)
        if status is None:
            return "it ended at once"
        if os.WIFSIGNALED(status):
            return f"it ended at once, by signal {os.WTERMSIG(status)}"
        return f"it ended at once, with status {os.WEXITSTATUS(status)}"

    def _hear(self) -> bool:
        """Whether there was an answer."""
        answer = self._answer(0)
        match answer:
            case ["ended", int(pid), int(status)]:
                self._ended[pid] = status
        return answer is not None

    def _answer(self, until: float) -> Any:
        """The next answer; None if there is none until then (``time.monotonic``)."""
        _, stdout = _both(self._child)
        while b"\n" not in self._buffer:
            left = max(0.0, until - time.monotonic())
            if not select.select([stdout], [], [], left)[0]:
                return None
            more = os.read(stdout.fileno(), _ANSWER_MOST)
            if not more or len(self._buffer) > _ANSWER_MOST:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        with contextlib.suppress(ValueError):
            return json.loads(line)
        return None


def _both(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout
