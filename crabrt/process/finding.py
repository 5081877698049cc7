"""Who takes images is found out once, when that is wanted, and nobody waits for it for long.

To find out is to try it: that takes a moment, and longer with a program that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final

from crabrt.process.criu.calling import Limit
from crabrt.process.imaging import Imager

_LIMIT_S: Final = 60.0
_SLICE_S: Final = 0.05

NOT_YET: Final = "whether images can be had here was not known in time"


class Finder:
    """Asks, and remembers the answer. Used by one thread at a time.

    Args:
        ask: gives who takes images, or says why nobody can. Whatever it waits for has a limit.
    """

    def __init__(self, ask: Callable[[], Imager | str]) -> None:
        self._ask = ask
        self._answer: Future[Imager | str] | None = None

    @property
    def found(self) -> Imager | None:
        """Who takes images; None where that is not known, or nobody does."""
        answer = self._answer
        if answer is None or not answer.done():
            return None
        found = answer.result()
        return found if isinstance(found, Imager) else None

    def get(self, until: Callable[[], float]) -> Imager | str:
        """Who takes images, or why nobody does, or that this is not known yet.

        Args:
            until: how long to wait for it as things stand, by ``time.monotonic``.
        """
        if self._answer is None:
            self._answer = Future()
            thread = threading.Thread(
                target=self._find, args=(self._answer,), name="crabrt-find-criu"
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends, and starts no thread any more
                self._find(self._answer)
        limit = Limit(_LIMIT_S, until)
        while not self._answer.done() and limit.left_s:
            wait([self._answer], timeout=min(limit.left_s, _SLICE_S))
        return self._answer.result() if self._answer.done() else NOT_YET

    def _find(self, answer: Future[Imager | str]) -> None:
        try:
            answer.set_result(self._ask())
        except Exception as error:  # noqa: BLE001  whatever it is, files are protected without it
            answer.set_result(f"whether images can be had here cannot be told: {error}")
