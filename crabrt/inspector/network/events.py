"""The perf events on a set of threads: opened together, drained together, closed together.

An event with ``inherit`` follows its thread into everything that it begins, through double forks
and new sessions, for as long as any of it lives; nobody else pays for it. The kernel wants one for
each processor then.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from crabrt.inspector.network import kernel
from crabrt.inspector.network.ring import Named, Ring, Sample
from crabrt.inspector.network.tracepoints import Tracepoint

_ONLINE: Final = Path("/sys/devices/system/cpu/online")
_ROUNDS_MOST: Final = 5


def processors() -> list[int]:
    """The processors that are on.

    Raises:
        OSError: the kernel does not tell, or not in a form that is understood.
    """
    found: list[int] = []
    try:
        for part in _ONLINE.read_bytes().decode().strip().split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{_ONLINE} is not understood") from error
    return found


class Follower:
    """Tracepoints, in threads and in all that they begin.

    Args:
        cpus: the processors.
        points: the tracepoints, each with a condition on its fields, and whether its samples carry
            the stack.
        names: also tell which names processes take on.

    Used by one thread at a time.
    """

    def __init__(
        self, cpus: Sequence[int], points: Sequence[tuple[Tracepoint, str, bool]], *, names: bool
    ) -> None:
        self._cpus = cpus
        self._points = points
        self._names = names
        self._events: list[int] = []
        self._rings: dict[int, tuple[int, Ring]] = {}
        self._followed: set[int] = set()

    def follow(self, threads: Callable[[], Sequence[int]]) -> None:
        """Follow all of `threads`, which is asked until it names no further ones.

        Raises:
            OSError: see `kernel.open_tracepoint`.
        """
        for _ in range(_ROUNDS_MOST):
            new = [thread for thread in threads() if thread not in self._followed]
            if not new:
                return
            for thread in new:
                self._followed.add(thread)
                with contextlib.suppress(ProcessLookupError):
                    for cpu in self._cpus:
                        self._attach(thread, cpu)

    def _attach(self, thread: int, cpu: int) -> None:
        if self._names:
            self._begin(kernel.open_names(thread, cpu), cpu, "")
        for point, only, stack in self._points:
            self._begin(kernel.open_tracepoint(point.number, thread, cpu, stack=stack), cpu, only)

    def _begin(self, event: int, cpu: int, only: str) -> None:
        self._events.append(event)
        if cpu in self._rings:
            kernel.begin(event, into=self._rings[cpu][0], only=only)
        else:
            self._rings[cpu] = (event, Ring(event))
            kernel.begin(event, only=only)

    def drain(self) -> tuple[list[Sample | Named], bool]:
        """What happened since the last time, in the order of time; and whether some is missing."""
        found: list[Sample | Named] = []
        lost = False
        for _, ring in self._rings.values():
            found += ring.drain()
            lost = lost or ring.lost
        found.sort(key=lambda one: one.time_ns)
        return found, lost

    def close(self) -> None:
        """Follow no longer. Idempotent."""
        for _, ring in self._rings.values():
            ring.close()
        self._rings = {}
        while self._events:
            os.close(self._events.pop())
