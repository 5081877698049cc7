"""Which calls of a run ended badly, and which of them the run ended with (design note 14)."""

from __future__ import annotations

import asyncio
from collections import deque

from crabrt.core.entries import CallId

_KEPT_MOST = 16
"""An exception holds on to all that its tool had in hand, and a loop need not ask a model."""


class BadEnds:
    """The calls that failed or were cancelled, as far as they can be why the run ends.

    At the call it cannot be known what the loop will make of it. At the end it can: the loop began
    no other call since, or ends with that very exception.
    """

    def __init__(self) -> None:
        self._since: list[CallId] = []
        self._errors: deque[tuple[BaseException, CallId]] = deque(maxlen=_KEPT_MOST)

    def begins(self, *, model: bool) -> None:
        """The loop makes a call, so it goes on; the exceptions of before are history to a model."""
        self._since.clear()
        if model:
            self._errors.clear()

    def ended(self, call: CallId, error: BaseException, *, acted_outside: bool = False) -> None:
        """`call` ended with `error`; `acted_outside`: it is declared external, and began to act.

        Such a call has an outcome unless it was cancelled: the loop may have handled that, though
        it made no other call.
        """
        if not acted_outside or isinstance(error, asyncio.CancelledError):
            self._since.append(call)
        self._errors.append((error, call))

    def cut_off_by(self, error: BaseException | None) -> tuple[CallId, ...]:
        """The calls that a run ended with that ends with `error`."""
        if error is None:
            return ()
        parts = _parts(error)
        same = (call for one, call in self._errors if any(one is part for part in parts))
        return tuple(sorted({*self._since, *same}))


def _parts(error: BaseException) -> list[BaseException]:
    """`error`, what it was raised from, and the members of groups; not what else was handled."""
    found: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or any(one is known for known in found):
            continue
        found.append(one)
        todo.append(one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
    return found
