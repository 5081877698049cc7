"""Keeping the store under its size cap, beside running loops and never in their way.

One daemon thread a process looks at the size now and then. It is neither the loop's thread nor the
engine's, so reaching the cap never holds a gate.
"""

from __future__ import annotations

import threading
import warnings

from crabrt.errors import Busy, CrabError
from crabrt.operations.retention import enforce_cap
from crabrt.runtime.engine import Engine
from crabrt.store import Store

PERIOD_S = 60.0

_lock = threading.Lock()
_thread: threading.Thread | None = None


def begin(engine: Engine) -> None:
    """Watch the size of the store of `engine` while it lives. Idempotent for each process."""
    global _thread  # noqa: PLW0603  one watcher a process
    with _lock:
        if _thread is not None and _thread.is_alive():
            return
        _thread = threading.Thread(target=_watch, args=(engine,), name="crabrt-upkeep", daemon=True)
        _thread.start()


def _watch(engine: Engine) -> None:
    while not engine.closed.wait(PERIOD_S):
        try:
            with Store.open(engine.config.home) as store:
                enforce_cap(store, engine.config.size_cap_bytes)
        except Busy:
            continue  # another process is at it
        except (CrabError, OSError) as error:
            warnings.warn(f"crabrt: the store's size cap could not be kept: {error}", stacklevel=1)
            return
