"""The exit code of a program that ``crab resume`` started: what stopped the resume, if anything.

That program is the user's own; only where it was started to resume a run, and ends by an uncaught
error of crabrt's, its exit code is that error's (8 diverged, 9 waiting for a decision, ...).
"""

from __future__ import annotations

import sys
from types import TracebackType

from crabrt.errors import CrabError


def exit_by_kind() -> None:
    """From now on an uncaught `CrabError` ends this program with its own exit code."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        before(kind, error, traceback)
        if isinstance(error, CrabError):
            raise SystemExit(error.exit_code)

    sys.excepthook = hook
