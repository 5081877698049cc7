"""Which call is this? Identity by place in the program: (scope path, callable name, occurrence).

A scope is a line of execution in which calls happen one after the other: the agent's own, an
asyncio task, the inside of a tool call. Scopes are named by the order in which they were spawned,
so that ``gather`` replays right whichever of its branches is faster. Tasks are named when they are
*created* (a task factory on the running loop, only for tasks of a run); their context carries the
scope from then on.

Threads have no spawn order that anybody could observe (a pool hands items to whichever thread is
free). Calls that reach a scope from a foreign thread go to its *unordered* sibling, ``path/~``,
where a call is known by its request digest as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

from crabrt.core.entries import CallId

if TYPE_CHECKING:
    from crabrt.runtime.session import Session

UNORDERED = "~"

_moments = itertools.count()


def moment() -> int:
    """Greater than all that this gave before: in this process, when something began."""
    return next(_moments)


class Scope:
    """One line of execution; hands out identities. Thread-safe.

    Attributes:
        path: names of the scopes from the agent's own down, ``/``-separated.
        ordered: whether calls in it follow one another.
        born: when the line of execution began that it belongs to (`moment`).
    """

    def __init__(self, path: str, *, ordered: bool = True, born: int | None = None) -> None:
        self.path = path
        self.ordered = ordered
        self.born = moment() if born is None else born
        self._thread = threading.get_ident()
        self._task: weakref.ref[asyncio.Task[Any]] | None = None
        self._lock = threading.Lock()
        self._spawned = 0
        self._counts: dict[str, int] = {}
        self._sibling: Scope | None = None

    def adopt(self) -> None:
        """Follow the current thread and task from now on."""
        self._thread = threading.get_ident()
        task = _current_task()
        self._task = weakref.ref(task) if task is not None else None

    def spawn(self) -> Scope:
        """The scope of the next thing spawned here."""
        with self._lock:
            child = Scope(f"{self.path}/{self._spawned}")
            self._spawned += 1
            return child

    def inside(self, call: CallId) -> Scope:
        """The scope of what happens inside a call made here: known by the call, not by order."""
        return Scope(call.inside, born=self.born)

    def here(self) -> Scope:
        """The scope for a call made now from the current thread and task, reached through this."""
        if not self.ordered:
            return self
        if threading.get_ident() != self._thread or not self._owned_by(_current_task()):
            return self.foreign()
        return self

    def _owned_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` is the one this scope follows; a scope follows one task after another."""
        owner = self._task() if self._task is not None else None
        if owner is None or owner.done():
            self._task = weakref.ref(task) if task is not None else None
            return True
        return task is None or task is owner

    def foreign(self) -> Scope:
        """The unordered sibling, for calls from threads that lost their context."""
        with self._lock:
            if self._sibling is None:
                path = f"{self.path}/{UNORDERED}"
                self._sibling = Scope(path, ordered=False, born=self.born)
            return self._sibling

    def identify(self, name: str, digest: bytes) -> CallId:
        """The identity of the next call of `name` here.

        In an unordered scope the name carries the digest of the request, as there is nothing else
        to tell two calls apart by.
        """
        full = name if self.ordered else f"{name}~{digest[:6].hex()}"
        with self._lock:
            occurrence = self._counts.get(full, 0)
            self._counts[full] = occurrence + 1
        return CallId(self.path, full, occurrence)


class Frame:
    """Where the current context is: in which session, in which scope, inside which kind of call."""

    __slots__ = ("inside", "scope", "session")

    def __init__(self, session: Session, scope: Scope, inside: str | None = None) -> None:
        self.session = session
        self.scope = scope
        self.inside = inside


FRAME: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("crabrt", default=None)


def leave(token: contextvars.Token[Frame | None]) -> None:
    """Undo a ``FRAME.set``, also where it was made in another context (a fixture, a foreign task).

    There the frame went away with its context, and there is nothing to undo here.
    """
    with contextlib.suppress(ValueError):
        FRAME.reset(token)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def watch_tasks() -> None:
    """Name tasks of runs by the order they are created in, on the running loop (if there is one).

    Idempotent. A task factory that is already there keeps doing the creating.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    inner: Any = loop.get_task_factory()
    if not isinstance(inner, _TaskFactory):
        loop.set_task_factory(_TaskFactory(inner))


class _TaskFactory:
    """Creates tasks as before; those of a run, in a context that holds a scope of their own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, /, **kwargs: Any) -> Any:
        context: contextvars.Context = kwargs.pop("context", None) or contextvars.copy_context()
        frame = context.get(FRAME)
        if frame is not None and frame.inside is None:
            child = Frame(frame.session, frame.scope.spawn())
            context.run(FRAME.set, child)
        if self._inner is not None:
            return self._inner(loop, coro, context=context, **kwargs)
        return asyncio.Task(coro, loop=loop, context=context, **kwargs)
