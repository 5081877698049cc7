"""How long models will think: predicted for each from what it took before.

Work is put where a wait hides it, so a wait must not be overrated: the prediction is a low one,
what nine in ten of a model's last calls exceeded. Calls that are answered from the journal teach
like those that are made, so a run that is taken up again knows its models at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

LAST: Final = 32
"""So many calls of a model count: enough for a low quantile, and soon forgotten when it changes."""

MODELS_MOST: Final = 256
"""Of so many models something is known: a loop that makes up names does not fill the memory."""

_LOW: Final = 10
"""One call in so many was quicker than the prediction, or none of fewer calls."""


class Thinking:
    """A call of a model that is being made."""

    __slots__ = ("model", "since")

    def __init__(self, model: str, since: float) -> None:
        self.model, self.since = model, since


class Forecast:
    """What is known of the waits of one engine's models. Thread-safe.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._took: dict[str, deque[float]] = {}
        self._last: dict[str, str] = {}
        self._open: set[Thinking] = set()
        self._lock = threading.RLock()  # garbage, which may end a call, is collected anywhere

    def began(self, run: str, model: str) -> Thinking:
        """`run` asks `model`. Give the call to `ended`."""
        asked = Thinking(model, self._clock())
        with self._lock:
            self._last[run] = model
            self._open.add(asked)
        return asked

    def ended(self, asked: Thinking, wait_s: float | None) -> None:
        """It is over, and took so long; None: there was no reply to wait for."""
        with self._lock:
            self._open.discard(asked)
            if wait_s is not None:
                self._learn(asked.model, wait_s)

    def learn(self, run: str, model: str, wait_s: float) -> None:
        """`run` asked `model` once, which took so long."""
        with self._lock:
            self._last[run] = model
            self._learn(model, wait_s)

    def left(self, run: str) -> None:
        """`run` asks nobody any more."""
        with self._lock:
            self._last.pop(run, None)

    def coming_s(self) -> float:
        """What the next wait will likely last at least; 0 where nothing is known.

        Every run is expected to ask whom it asked last; of several runs the first one counts.
        """
        with self._lock:
            return min(map(self._low_s, self._last.values()), default=0.0)

    def left_s(self) -> float | None:
        """In how many seconds a reply is likely, at the earliest; None: nobody knows."""
        with self._lock:
            now = self._clock()
            known = (one for one in self._open if one.model in self._took)
            left = (one.since + self._low_s(one.model) - now for one in known)
            earliest = min(left, default=None)
        return None if earliest is None else max(earliest, 0.0)

    def _learn(self, model: str, wait_s: float) -> None:
        took = self._took.pop(model, None)
        if took is None:
            took = deque(maxlen=LAST)
            while len(self._took) >= MODELS_MOST:  # in the order of their last call
                del self._took[next(iter(self._took))]
        took.append(wait_s)
        self._took[model] = took

    def _low_s(self, model: str) -> float:
        took = self._took.get(model)
        return sorted(took)[len(took) // _LOW] if took else 0.0
