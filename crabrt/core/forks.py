"""Forks, while threads of ours are at work.

A forked child has one thread. What another thread had locked at that moment stays locked in the
child for ever. Locks of ours that a child could need are `fork_safe`. SQLite's own, some of which
are the whole process's, cannot be: a child that opens a database of its own would hang as well. So
whoever uses SQLite does so inside `unforked`, and a fork waits until nobody is inside: microseconds
as a rule, `PATIENCE_S` at most.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

PATIENCE_S = 1.0
"""Neither a fork nor who wants to enter meanwhile waits longer: other hooks of forks have locks of
their own, and nothing here may become a deadlock with them. A fork that did not get its way is as
dangerous as one without this gate."""

_POLL_S = 20e-6

_F = TypeVar("_F", bound=Callable[..., Any])


class Unforked:
    """Functions during which no other thread forks. Reentrant, shared, and cheap: no lock is taken.

    Who enters notes itself first and then looks whether somebody forks; who forks says so first and
    then looks who is inside. So one of the two sees the other.

    A signal's handler may raise anywhere in Python code. So what happens after a fork is done by
    functions written in C, and `gated` leaves in a block that no handler can skip: there is no form
    for ``with``, whose end is a call that one could.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # by thread, how deep
        self._forking: dict[int, None] = {}  # the thread that does
        self._one_fork = threading.RLock()
        self._hooked = False

    def gated(self, function: _F) -> _F:
        """`function`, run inside."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            me, inside = threading.get_ident(), self._inside
            depth = inside.get(me, 0)
            try:
                inside[me] = depth + 1
                if self._forking or not self._hooked:
                    self._enter_slowly(me, depth)
                return function(*args, **options)
            finally:
                if depth:
                    inside[me] = depth
                elif me in inside:
                    del inside[me]

        return call  # type: ignore[return-value]

    def _enter_slowly(self, me: int, depth: int) -> None:
        if not self._hooked:
            self._hook()
        until = time.monotonic() + PATIENCE_S
        while not depth and self._forking and me not in self._forking and time.monotonic() < until:
            del self._inside[me]
            time.sleep(_POLL_S)
            self._inside[me] = 1

    def _hook(self) -> None:
        """Once, and not at import, which has no effects."""
        with self._one_fork:
            if self._hooked:
                return
            os.register_at_fork(
                before=self._before,
                after_in_parent=self._forking.clear,
                after_in_child=self._in_child,
            )
            # Hooks before a fork run last one first, those after it first one first.
            os.register_at_fork(
                before=self._one_fork.acquire,
                after_in_parent=self._one_fork.release,
                after_in_child=self._one_fork._at_fork_reinit,  # type: ignore[attr-defined]  # noqa: SLF001 - as threading does
            )
            self._hooked = True

    def _before(self) -> None:
        """Keep everybody out, and wait until nobody else is inside."""
        me = threading.get_ident()
        until = time.monotonic() + PATIENCE_S
        while True:
            self._forking[me] = None
            if all(thread == me for thread in self._inside.copy()) or time.monotonic() > until:
                return
            time.sleep(_POLL_S)

    def _in_child(self) -> None:
        """The threads that were inside are not here."""
        me = threading.get_ident()
        for thread in self._inside.copy():
            if thread != me:
                del self._inside[thread]
        self._forking.clear()


unforked = Unforked()
"""That of this process."""


def fork_safe(lock: Any) -> Any:
    """A lock of ``threading`` that lives as long as the process, made free in a forked child.

    What it guards must be as good as whole at any moment: the child may see half of a change.
    """
    os.register_at_fork(after_in_child=lock._at_fork_reinit)  # noqa: SLF001 - as logging does
    return lock
