"""What lives in this process: runs, and agents by name.

Contextvars are lost in plain threads and executors: a call with no context belongs to the one live
run of the process, and with several live runs that is an error which says how to carry the context.
In a forked child every run of the parent is inert: calls there are the plain functions.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from crabrt.core.config import RUN_VARIABLE
from crabrt.errors import NoCurrentRun
from crabrt.runtime.scopes import FRAME, Frame

if TYPE_CHECKING:
    from crabrt.runtime.session import Session

_lock = threading.Lock()
_live: dict[str, Session] = {}
_agents: dict[str, Any] = {}
_pid = os.getpid()


def add(session: Session) -> None:
    """`session` lives from now on; what it starts carries its id."""
    global _pid  # noqa: PLW0603  which process the table belongs to
    with _lock:
        if _pid != os.getpid():
            _live.clear()
            _pid = os.getpid()
        _live[session.id] = session
        os.environ.setdefault(RUN_VARIABLE, session.family)


def remove(session: Session) -> None:
    """`session` is over."""
    with _lock:
        _live.pop(session.id, None)
        if not _live and os.environ.get(RUN_VARIABLE) == session.family:
            del os.environ[RUN_VARIABLE]


def live(run_id: str) -> Session | None:
    """The live session of a run in this process."""
    return _live.get(run_id) if _pid == os.getpid() else None


def current_frame() -> Frame | None:
    """The frame that a call made now belongs to; None outside of any run.

    Raises:
        NoCurrentRun: the context was lost, and several runs are live.
    """
    if not _live or _pid != os.getpid():
        return None
    frame = FRAME.get()
    if frame is not None:
        return frame if frame.session.id in _live else None
    roots = [session for session in _live.values() if session.parent is None]
    if len(roots) == 1:
        return Frame(roots[0], roots[0].scope.foreign())
    raise NoCurrentRun(
        f"this call was made in a thread without a context while {len(roots)} runs are live",
        hint="start the thread with contextvars.copy_context().run, or use asyncio.to_thread",
    )


def add_agent(name: str, agent: Any) -> None:
    """An agent function called `name` was decorated."""
    _agents[name] = agent


def agent_named(name: str) -> Any | None:
    """The agent function called `name`, if it was imported."""
    return _agents.get(name)
