"""How long each model takes to reply, by the run's own history: when the next reply is expected."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

_REMEMBERED: Final = 16
_UNKNOWN_MS: Final = 1000.0
"""Before anything is known. Models rarely think for less."""


class ReplyTimes:
    """The last waits by model. An estimate on the early side: a deadline is worse missed than met.

    Used under the run's lock.
    """

    def __init__(self) -> None:
        self._by_model: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )

    def add(self, model: str, waited_ms: float) -> None:
        """A reply of `model` took so long."""
        self._by_model[model].append(waited_ms)

    def expected_ms(self, model: str) -> float:
        """How long its next reply will take, three times of four longer.

        A model that was never heard is taken for as quick as the others of the run.
        """
        waits = self._by_model.get(model) or [
            wait for others in self._by_model.values() for wait in others
        ]
        if not waits:
            return _UNKNOWN_MS
        return sorted(waits)[len(waits) // 4]
