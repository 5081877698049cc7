"""One program, run in a process group of its own, with a limit: it ends, or is ended."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crabrt.process import claims
from crabrt.process.claims import ENVIRONMENT
from crabrt.process.criu.guarding import Guard, Half

_WHEN_GUARDED: Final = ("/bin/sh", "-c", 'read -r go && exec "$@" < /dev/null', "sh")
"""A program begins when its guard is there: if we die before, it never does."""

_SLICE_S: Final = 0.05
_KILL_LIMIT_S: Final = 10.0
"""A killed process that the kernel does not let go of within this time is left behind."""


def never() -> float:
    """For `Limit`: nobody waits."""
    return math.inf


class Limit:
    """How long something may take, from now on; less where somebody comes to wait for it.

    Args:
        limit_s: in any case.
        until: by when it has to be over as things stand, by ``time.monotonic``. Asked again and
            again.
    """

    def __init__(self, limit_s: float, until: Callable[[], float] = never) -> None:
        self._end = time.monotonic() + limit_s
        self._until = until

    @property
    def left_s(self) -> float:
        """How long it may go on; 0 where the time is over."""
        return max(0.0, min(self._end, self._until()) - time.monotonic())

    @property
    def is_hurried(self) -> bool:
        """Whether it is over for somebody who waits, and would not be otherwise."""
        return self._until() <= time.monotonic() < self._end

    def but_at_least(self, grace_s: float) -> Limit:
        """The same, where whoever waits waits for so much longer from now on."""
        end = time.monotonic() + grace_s
        return Limit(self._end - time.monotonic(), lambda: max(end, self._until()))

    def poll(self, poll: select.poll) -> list[tuple[int, int]]:
        """What `poll` reports within the time that is left."""
        while True:
            left_s = self.left_s
            found = poll.poll(min(left_s, _SLICE_S) * 1e3)
            if found or not left_s:
                return found


class Call:
    """A program that runs. As a context manager: leaving kills what is left of it.

    Args:
        argv: what to run.
        output: where its standard output and error go.
        pass_fds: descriptors of this process that it gets, under the same numbers.
        outlives_s: how long it may go on if we die; None: for as long as it likes.
        half: if it is a restore: what is to end with it then.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        output: Path,
        pass_fds: Sequence[int] = (),
        outlives_s: float | None = None,
        half: Half | None = None,
    ) -> None:
        self._began = time.monotonic()
        guarded = outlives_s is not None
        if guarded and shutil.which(argv[0], path=ENVIRONMENT["PATH"]) is None:
            # Which nobody would be told by a shell that cannot begin it.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        words = [*(_WHEN_GUARDED if guarded else ()), *argv]
        with open(output, "wb") as file:
            self._child = claims.helper(
                lambda: subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE if guarded else subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=dict(ENVIRONMENT),
                    pass_fds=tuple(pass_fds),
                    start_new_session=True,
                )
            )
        self.pid = self._child.pid
        self._guard: Guard | None = None
        if outlives_s is not None:
            try:
                self._guard = Guard(self.pid, outlives_s, half)
                self._let_begin()
            except BaseException:
                self.kill()
                raise

    def _let_begin(self) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError), stdin:  # it was killed already
            stdin.write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if self._guard is not None:
            self._guard.dismiss()

    @property
    def took_s(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._began

    def wait(self, limit: Limit | float) -> int | None:
        """Its exit status, negative for a signal; None if it still runs after that time (s)."""
        limit = limit if isinstance(limit, Limit) else Limit(limit)
        if self._child.returncode is None and _ended(self._child.pid, limit):
            self._child.wait()
        return self._child.returncode

    def signal(self, number: int) -> None:
        """Send a signal to its whole group, if any of it is left."""
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def kill(self) -> int | None:
        """End its whole group; its exit status, or None if the kernel does not let go of it."""
        self.signal(signal.SIGKILL)
        return self.wait(_KILL_LIMIT_S)


def _ended(pid: int, limit: Limit) -> bool:
    """Wait until our child `pid` has ended. By a descriptor: told at once."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(limit.poll(poll))
    finally:
        os.close(handle)


def run(argv: Sequence[str], output: Path, limit_s: float) -> int | None:
    """Run a program; its exit status, or None if it had to be ended after `limit_s`.

    Raises:
        OSError: it cannot be started.
    """
    with Call(argv, output) as call:
        return call.wait(limit_s)
