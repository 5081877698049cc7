"""What a loop has to be told: remembered where it happens, told on the loop's own thread."""

from __future__ import annotations

import warnings
from collections import deque

from crabrt.errors import Unprotected


class UnprotectedWarning(UserWarning):
    """A run lost protection and goes on. Given once for each run."""


class RestoreWarning(UserWarning):
    """A run put files back, and that touched somebody else: see the run's notes."""


class CallbackWarning(UserWarning):
    """A function that describes calls (``usage=``, ``key=``, ...) failed; it is done without."""


class ObserverWarning(UserWarning):
    """An observer missed changes, as an audit of it found: please report it. None is lost."""


class Losses:
    """What a run lost so far, what else is to be said, and whether its loop has been told.

    Args:
        strict: telling raises instead of warning.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._untold: str | None = None
        self._warned = False
        self._mentions: deque[tuple[str, type[Warning]]] = deque()
        self._mentioned: set[str] = set()

    def mention(
        self, what: str, category: type[Warning] = RestoreWarning, *, once: str = ""
    ) -> None:
        """Something to warn of that is no loss; of what has the same `once`, the first."""
        if once and once in self._mentioned:
            return
        self._mentioned.add(once)
        self._mentions.append((what, category))

    def add(self, what: str) -> None:
        """Something was lost; the first of several is the one that is told. From any thread."""
        self._untold = self._untold or what

    def tell(self, run: str) -> None:
        """Tell the loop of `run`: once by a warning, or each time by raising, if strict.

        Raises:
            Unprotected: the run is strict.
        """
        while self._mentions:
            text, category = self._mentions.popleft()
            warnings.warn(f"crabrt: run {run}: {text}", category, stacklevel=3)
        lost, self._untold = self._untold, None
        if lost is None:
            return
        if self._strict:
            raise Unprotected(lost, where=run)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"crabrt: run {run}: {lost}; the loop goes on, see `crab log {run}`",
                UnprotectedWarning,
                stacklevel=3,
            )
