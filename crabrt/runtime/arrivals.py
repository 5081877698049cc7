"""In which order the outcomes of parallel calls reach a resumed loop: as they did when it ran.

A loop that takes results as they come (``asyncio.as_completed``, ``asyncio.wait``, a queue, threads
that append to one list) goes on from their order: its next request names them in it. On a replay
every answer is there at once; so each waits until those have been given that came before it.

A call that is not made at all must not hold up the others (its task sleeps first, or it belongs to
a part of the program that no longer is): where nothing moves for a moment, its place is given up.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import heapq
import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from crabrt.core.entries import CallId
from crabrt.runtime.waits import Steps, Wait

QUIET_S: Final = 0.1
"""How long nothing is asked and nothing given until calls that were not made are given up."""

_APART_S: Final = 0.002
"""How far apart outcomes are given that different lines of execution wait for, at least."""

_HELD_MOST_S: Final = 5.0
"""How much longer than it lasted a call waits for others that were made, and are not over."""


class Arrivals:
    """The recorded order. Thread-safe.

    Args:
        sealed: where the outcome of each call lies in the journal (its seq).
    """

    def __init__(self, sealed: Mapping[CallId, int]) -> None:
        self._lock = threading.Lock()
        self._places = dict(sealed)
        self._order = sorted(sealed, key=self._places.__getitem__)
        self._scopes = sorted({(call.scope, call) for call in sealed})
        self._head = 0
        self._made: set[CallId] = set()
        self._over: set[CallId] = set()
        self._waiting: list[tuple[int, int, concurrent.futures.Future[None]]] = []
        self._moved = time.monotonic()
        self._given_in: str | None = None

    def made(self, call: CallId) -> None:
        """The loop made it; its answer is given soon."""
        with self._lock:
            self._made.add(call)
            self._moved = time.monotonic()

    def over(self, call: CallId, *, inside: bool = False) -> None:
        """Its outcome reached the loop, or it is not answered from the record.

        Args:
            call: which.
            inside: the calls that were made inside of it are not made again.
        """
        with self._lock:
            self._pass([call, *(self._made_in(call.inside) if inside else ())])
            self._given_in = call.scope

    def forget(self, calls: Iterable[CallId]) -> None:
        """They never happened."""
        with self._lock:
            self._pass(calls)

    def in_turn(self, call: CallId, lasted_s: float) -> Steps[None]:
        """Wait until all outcomes are given that came before that of `call`; not for ever.

        Args:
            call: which was made.
            lasted_s: how long it ran when it was recorded.
        """
        place = self._places.get(call)
        if place is None:
            return
        future = concurrent.futures.Future[None]()
        with self._lock:
            comes_later = self._next < place
            if comes_later:
                heapq.heappush(self._waiting, (place, id(future), future))
        until = time.monotonic() + lasted_s + _HELD_MOST_S
        while comes_later and not (yield Wait(future, QUIET_S, courtesy=True)):
            with self._lock:
                self._give_up(place, everything=time.monotonic() > until)
        if self._given_in not in (None, call.scope) and time.monotonic() - self._moved < _APART_S:
            # Whoever waits for several at once sees the one before this first, and alone.
            yield Wait(concurrent.futures.Future(), _APART_S, courtesy=True)

    @property
    def _next(self) -> float:
        """The place of the first outcome that is not given yet."""
        at = self._head
        return self._places[self._order[at]] if at < len(self._order) else math.inf

    def _give_up(self, place: int, *, everything: bool) -> None:
        """Where nothing moves: those before `place` that are not made, or all of them."""
        if not everything and time.monotonic() - self._moved < QUIET_S:
            return
        ahead = []
        for call in self._order[self._head :]:
            if self._places[call] >= place:
                break
            if everything or call not in self._made:
                ahead.append(call)
        self._pass(ahead)

    def _pass(self, calls: Iterable[CallId]) -> None:
        self._over.update(calls)
        self._moved = time.monotonic()
        while self._head < len(self._order) and self._order[self._head] in self._over:
            self._head += 1
        while self._waiting and self._waiting[0][0] <= self._next:
            future = heapq.heappop(self._waiting)[2]
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _made_in(self, scope: str) -> list[CallId]:
        found = []
        first = bisect.bisect_left(self._scopes, scope, key=lambda pair: pair[0])
        for name, call in self._scopes[first:]:
            if not name.startswith(scope):
                break
            if call.is_within(scope):
                found.append(call)
        return found
