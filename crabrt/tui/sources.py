"""What the screens read from: the store, opened when it is first asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crabrt.store import Store
    from crabrt.timeline.reader import RunReader


class Source:
    """A store to look into. Thread-safe.

    Attributes:
        home: its directory.
        is_default: whether commands find it without being told.
        in_tmux: whether the terminal is one of tmux.
        last_command: what was done last from the interface, as a command line; else empty.
    """

    def __init__(self, home: Path, *, is_default: bool = False, in_tmux: bool = False) -> None:
        self.home = home
        self.is_default = is_default
        self.in_tmux = in_tmux
        self.last_command = ""
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            FormatTooNew, StoreUnavailable, NotFound: it cannot be opened.
        """
        with self._lock:
            if self._store is None:
                from crabrt.store import Store  # noqa: PLC0415 - first paint does not need it

                self._store = Store.open(self.home)
            return self._store

    def reader(self, run: str) -> RunReader:
        """What answers about one run; raises as `store`."""
        from crabrt.timeline.reader import RunReader  # noqa: PLC0415 - first paint does not need it

        return RunReader(self.store, run)

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None
