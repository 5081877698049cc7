"""What was put and then lost by a failed write, and who has to be told.

A failed write or fsync takes with it what other threads had put before. The thread that failed gets
the error; every other one hears of it from its next `flush` or `sync`, once, unless all of it was
put again by then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.errors import StoreUnavailable


class Losses:
    """The losses of one writer. Its lock guards them, but for `listen` and `count`.

    Attributes:
        count: how often something was lost.
    """

    def __init__(self, home: Path) -> None:
        self.count = 0
        self._home = home
        self._lost: set[ObjectId] = set()
        self._announced = 0
        self._local = threading.local()

    def listen(self) -> None:
        """This thread is about to rely on what was put: every loss from here on concerns it."""
        self._local.__dict__.setdefault("told", self.count)

    def start_over(self) -> None:
        """This thread relies on nothing that was put until now."""
        self._local.told = self.count

    def add(self, object_ids: Iterable[ObjectId]) -> None:
        """These were put and are no more; by now no look-up finds them."""
        lost = set(object_ids)
        if lost:
            self._lost |= lost
            self.count += 1

    def stored(self, object_id: ObjectId) -> None:
        """It was put again, or its own `put` says that it was not."""
        if self._lost:
            self._lost.discard(object_id)

    def tell(self) -> None:
        """The error about to be raised tells this thread of every loss so far."""
        self._local.told = self._announced = self.count

    def raise_untold(self) -> None:
        """Tell this thread of what is still lost.

        Raises:
            StoreUnavailable: it had not been told.
        """
        told = getattr(self._local, "told", self._announced)
        if not self._lost:
            self.tell()
        elif min(told, self._announced) < self.count:
            self.tell()
            raise StoreUnavailable(
                f"{len(self._lost)} objects put before were lost by a failed write",
                where=str(self._home),
                hint="free some space; they are stored again when they are put again",
            )
