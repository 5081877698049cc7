"""What lives in this process: runs, and agents by name.

Contextvars are lost in plain threads and executors: a call with no context belongs to the one live
run of the process, and with several live runs that is an error which says how to carry the context.
In a forked child every run of the parent is inert: calls there are the plain functions.

What a run starts carries its id in ``CRAB_RUN``. An environment belongs to a process, not to a run:
while several runs are live in one, what any of them starts names them all (``orphans`` has the
form, and knows what to make of it).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from crabrt.core.config import RUN_VARIABLE
from crabrt.core.forks import fork_safe
from crabrt.errors import NoCurrentRun
from crabrt.process.orphans import carried
from crabrt.runtime.scopes import FRAME, Frame

if TYPE_CHECKING:
    from crabrt.runtime.session import Session

_lock = fork_safe(threading.Lock())
_live: dict[str, Session] = {}
_agents: dict[str, Any] = {}
_pid = os.getpid()
_inherited = ""


def add(session: Session) -> None:
    """`session` lives from now on; what it starts carries its id."""
    global _pid, _inherited  # noqa: PLW0603  which process the table belongs to
    with _lock:
        if _pid != os.getpid():
            _live.clear()
            _pid = os.getpid()
        if not _live:
            _inherited = os.environ.get(RUN_VARIABLE, "")
        _live[session.id] = session
        _name_runs()


def remove(session: Session) -> None:
    """`session` is over."""
    with _lock:
        if _live.pop(session.id, None) is not None:
            _name_runs()


def _name_runs() -> None:
    roots = [session.id for session in _live.values() if session.parent is None]
    text = carried(_inherited, roots)
    if text:
        os.environ[RUN_VARIABLE] = text
    else:
        os.environ.pop(RUN_VARIABLE, None)


def beside(session: Session) -> list[str]:
    """The live runs that have acted in its workspace since its turn opened, but for its own line.

    A run that called it waits for it, and what it called did its work: those are no strangers.
    """
    with _lock:
        others = [other for other in _live.values() if other.engine is session.engine]
    lines = {id(one) for one in _line(session)}
    return sorted(
        other.id
        for other in others
        if id(other) not in lines
        and session not in _line(other)
        and (other.machine.running or other.acted_at > session.opened_at)
    )


def _line(session: Session) -> list[Session]:
    """A run and those that called it."""
    line = [session]
    while (above := line[-1].parent) is not None:
        line.append(above)
    return line


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
    return _lost_frame([session for session in _live.values() if session.parent is None])


def frame_in(directory: bytes) -> Frame | None:
    """The frame that an agent called now for the workspace `directory` is nested in, if any.

    Without a context it is nested only in the one live run that works there: agents for other
    directories are runs of their own, whichever thread starts them.

    Raises:
        NoCurrentRun: the context was lost, and several runs are live in that directory.
    """
    if not _live or _pid != os.getpid():
        return None
    if FRAME.get() is not None:
        return current_frame()
    roots = [session for session in _live.values() if session.parent is None]
    here = [session for session in roots if overlap(directory, session.engine.workspace.path)]
    return _lost_frame(here) if here else None


def overlap(one: bytes, two: bytes) -> bool:
    """Whether one of two real paths is the other, or lies in it."""
    one, two = one.rstrip(b"/") + b"/", two.rstrip(b"/") + b"/"
    return one.startswith(two) or two.startswith(one)


def _lost_frame(roots: list[Session]) -> Frame:
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
