"""Keeping the store under its size cap, beside running loops and never in their way.

One daemon thread a process looks at the size when a run begins, and now and then after. It is
neither the loop's thread nor the engine's, so reaching the cap never holds a gate.
"""

from __future__ import annotations

import threading
import warnings

from crabrt.core.forks import fork_safe
from crabrt.errors import Busy, CrabError
from crabrt.operations.retention import enforce_cap
from crabrt.runtime.engine import Engine
from crabrt.store import Store

PERIOD_S = 60.0

_lock = fork_safe(threading.Lock())
_thread: threading.Thread | None = None
_engines: list[Engine] = []


def begin(engine: Engine) -> None:
    """Watch the size of the store of `engine` while it lives."""
    global _thread  # noqa: PLW0603  one watcher a process
    with _lock:
        _engines.append(engine)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_watch, name="crabrt-upkeep", daemon=True)
            _thread.start()


def _next() -> Engine | None:
    """The oldest engine that lives; None, and the end of this thread, where there is none."""
    global _thread  # noqa: PLW0603  one watcher a process
    with _lock:
        _engines[:] = [one for one in _engines if not (one.closed.is_set() or one.is_inherited)]
        if not _engines:
            _thread = None
            return None
        return _engines[0]


def _watch() -> None:
    warned = False
    while (engine := _next()) is not None:
        try:
            with Store.open(engine.config.home) as store:
                enforce_cap(store, engine.config.size_cap_bytes)
        except Busy:
            pass  # another process is at it
        except (CrabError, OSError) as error:
            if not warned and not engine.closed.is_set():
                warned = True
                warnings.warn(
                    f"crabrt: the store's size cap could not be kept: {error}", stacklevel=1
                )
        engine.closed.wait(PERIOD_S)
