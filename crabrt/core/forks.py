"""Forks, while threads of ours are at work.

A forked child has one thread. What another thread had locked at that moment stays locked in the
child for ever: locks of ours, and SQLite's, some of which are the whole process's, so that a child
that opens a database of its own hangs as well. Whoever takes such a lock does so inside `unforked`,
and a fork waits until nobody is inside: microseconds as a rule, `PATIENCE_S` at most.
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

PATIENCE_S = 1.0
"""A fork waits no longer: who is inside for so long waits for another process's lock on a file,
and holds nothing that a child could need."""

_POLL_S = 20e-6


class Unforked:
    """A context in which no other thread forks. Reentrant, shared, and cheap: it takes no lock.

    Who enters notes itself first and then looks whether somebody forks; who forks says so first and
    then looks who is inside. So one of the two sees the other.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # by thread, how deep
        self._forking: int | None = None
        self._one_fork = threading.Lock()
        self._hooked = False

    def __enter__(self) -> None:
        me, inside = threading.get_ident(), self._inside
        depth = inside.get(me, 0)
        inside[me] = depth + 1
        if self._forking is not None or not self._hooked:
            self._enter_slowly(me, depth)

    def _enter_slowly(self, me: int, depth: int) -> None:
        if not self._hooked:
            self._hook()
        while not depth and self._forking not in {None, me}:
            del self._inside[me]
            time.sleep(_POLL_S)
            self._inside[me] = 1

    def _hook(self) -> None:
        """Once, and not at import, which has no effects."""
        with self._one_fork:
            if not self._hooked:
                os.register_at_fork(
                    before=self._before,
                    after_in_parent=self._in_parent,
                    after_in_child=self._in_child,
                )
                self._hooked = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        me, inside = threading.get_ident(), self._inside
        depth = inside[me] - 1
        if depth:
            inside[me] = depth
        else:
            del inside[me]

    def _before(self) -> None:
        """Keep everybody out, and wait until nobody else is inside."""
        self._one_fork.acquire()
        self._forking = me = threading.get_ident()
        until = time.monotonic() + PATIENCE_S
        while any(thread != me for thread in tuple(self._inside)) and time.monotonic() < until:
            time.sleep(_POLL_S)

    def _in_parent(self) -> None:
        self._forking = None
        self._one_fork.release()

    def _in_child(self) -> None:
        """The threads that were inside are not here."""
        me = threading.get_ident()
        for thread in tuple(self._inside):
            if thread != me:
                del self._inside[thread]
        self._in_parent()


unforked = Unforked()
"""That of this process."""
