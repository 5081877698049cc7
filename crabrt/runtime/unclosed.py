"""Shells that an exception closed: they live until it is known whether the run ends with it.

If it does, what the run is resumed from is its last checkpoint, which has the shell as it was, and
the shell is closed when that is made. If the loop goes on instead, it was a shell that was closed:
before the next call, the next shell or a rollback of the line of execution that it was left in (or
of one that waits for that, or began since) it is. What was under way beside it all the time may go
on whatever becomes of the exception, so its calls tell nothing.

A shell that is used by the loop alone: what a tool closes is closed. It is the tool that is called
again, if the run ends with its failure, and it makes its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crabrt.errors import NoCurrentRun
from crabrt.process.shell import Shell
from crabrt.process.shells import Identity
from crabrt.runtime import registry, scopes
from crabrt.runtime.scopes import Frame, Scope
from crabrt.runtime.waits import Steps, Wait

if TYPE_CHECKING:
    from crabrt.runtime.session import Session


@dataclass(frozen=True)
class _Left:
    """Where a shell was left, and when."""

    line: str
    at: int


def current_frame() -> Frame | None:
    """Where the loop is; None outside of any run, and where nobody can tell in which."""
    try:
        return registry.current_frame()
    except NoCurrentRun:
        return None


def keep(who: Identity, shell: Shell) -> bool:
    """Leave `shell`, which an exception closes, to the run that it is used in.

    Returns:
        Whether there is such a run; else it is still open.
    """
    frame = current_frame()
    if frame is None or frame.inside is not None:
        return False
    session = frame.session
    if session.inert or session.engine.config.processes == "off":
        return False
    if shell.record is None and not session.acting:
        return False  # a replay that stops: what came back is left to the next one
    left = _Left(_line(session, frame.scope), scopes.moment())
    return session.engine.custody.shells.keep(who, shell, left)


def goes_on(session: Session, scope: Scope) -> Steps[None]:
    """`session` goes on in `scope`: what was left behind there is closed first."""
    shells = session.engine.custody.shells
    if not shells.keeps_any or session.ending:
        return
    line = _line(session, scope) + "/"

    def is_behind(tag: object) -> bool:
        return isinstance(tag, _Left) and (scope.born > tag.at or f"{tag.line}/".startswith(line))

    closed = shells.close_kept(is_behind)
    if not closed.done():
        yield Wait(closed)


def _line(session: Session, scope: Scope) -> str:
    """The path of a scope from the outermost run on. Of threads nobody knows which is which."""
    return session.place + scope.path.removesuffix(f"/{scopes.UNORDERED}")
