"""Nothing acts while the workspace is put back, though calls and runs end their replays at once.

Parallel calls and child runs come to the end of what is recorded side by side. The workspace is put
back once for each run, for the first call that comes there; and what that call then does must not
be undone for a call that comes a moment later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from crabrt.workspace import RestoreReport

PutBack = Future[RestoreReport | None]


class PutBacks:
    """Those of one workspace in this process. Thread-safe.

    Attributes:
        acted: whether a tool of any run has acted.
    """

    def __init__(self) -> None:
        self.acted = False
        self._lock = threading.Lock()
        self._under_way: dict[str, PutBack] = {}

    def join(
        self, run: str, begin: Callable[[], PutBack], wanted: Callable[[bool], bool]
    ) -> tuple[PutBack | None, bool]:
        """The one of `run` that is under way, or is begun now; and whether that is the case.

        Args:
            run: whose.
            begin: begins it; returns at once.
            wanted: whether there is to be one, if none is under way; told whether a tool has acted.
                Where not, there is none.
        """
        with self._lock:
            known = self._under_way.get(run)
            if known is not None and not known.done():
                return known, False
            if not wanted(self.acted):
                return None, False
            self._under_way[run] = begin()
            return self._under_way[run], True

    def before_a_tool(self) -> PutBack | None:
        """One that is under way; None if there is none, and then the tool counts as acting."""
        with self._lock:
            self._under_way = {
                run: put_back for run, put_back in self._under_way.items() if not put_back.done()
            }
            for put_back in self._under_way.values():
                return put_back
            self.acted = True
            return None
