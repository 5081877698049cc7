"""When something was going on: intervals of the monotonic clock, merged while they overlap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Intervals = tuple[tuple[int, int], ...]
"""Of (begin, end) in nanoseconds; the last may go on."""

GOES_ON = (1 << 63) - 1
"""The end of what has not ended."""

_KEPT_MOST = 10_000


class Spans:
    """Collects when at least one of several things was going on. Thread-safe."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._past: list[tuple[int, int]] = []
        self._running = 0
        self._since = 0
        self._lock = threading.RLock()  # garbage, which may end something, is collected anywhere

    def begin(self) -> None:
        """One more goes on."""
        with self._lock:
            if not self._running:
                self._since = self._clock()
            self._running += 1

    def end(self) -> None:
        """One less goes on. Without a `begin` it is nothing."""
        with self._lock:
            if not self._running:
                return
            self._running -= 1
            if not self._running:
                self._past.append((self._since, self._clock()))
                if len(self._past) > _KEPT_MOST:  # of two old ones, one: what is between counts too
                    first, second, *rest = self._past
                    self._past = [(first[0], second[1]), *rest]

    def since(self, begin_ns: int) -> Intervals:
        """Those that had not ended at `begin_ns`."""
        with self._lock:
            found = [one for one in self._past if one[1] >= begin_ns]
            if self._running:
                found.append((self._since, GOES_ON))
        return tuple(found)


def covers(intervals: Intervals, time_ns: int) -> bool:
    """Whether `time_ns` lies in one of them."""
    return any(begin <= time_ns <= end for begin, end in intervals)
