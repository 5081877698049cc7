"""What a loop has to be told: remembered where it happens, told on the loop's own thread."""

from __future__ import annotations

import inspect
import warnings
from collections import deque

from crabrt.errors import Unprotected

_OURS = ("crabrt.", "crabrt_")  # an adapter's frames are no more the loop's than our own


class UnprotectedWarning(UserWarning):
    """A run lost protection and goes on. Given once for each run."""


class RestoreWarning(UserWarning):
    """A run put files back, and that touched somebody else: see the run's notes."""


class CallbackWarning(UserWarning):
    """A function that describes calls (``usage=``, ``key=``, ...) failed; it is done without."""


class ObserverWarning(UserWarning):
    """An observer missed changes, as an audit of it found: please report it. None is lost."""


def warn(text: str, category: type[Warning]) -> None:
    """Warn of `text`, at the line of the loop's own code that this package was called from."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"crabrt: {text}", category, stacklevel=level if frame is not None else 1)


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
            warn(f"run {run}: {text}", category)
        lost, self._untold = self._untold, None
        if lost is None:
            return
        if self._strict:
            raise Unprotected(lost, where=run)
        if not self._warned:
            self._warned = True
            warn(f"run {run}: {lost}; the loop goes on, see `crab log {run}`", UnprotectedWarning)
