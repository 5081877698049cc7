"""Values that differ from run to run, journalled so that a resumed loop sees them again."""

from __future__ import annotations

import datetime as dt
import random as _random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from crabrt.core.entries import Recorded
from crabrt.runtime import registry
from crabrt.runtime.calls import Answer
from crabrt.runtime.golive import stop_diverged
from crabrt.runtime.replay import Advice, Species
from crabrt.runtime.scopes import Frame
from crabrt.runtime.session import CODECS
from crabrt.runtime.structured import known_classes

T = TypeVar("T")


def recorded(function: Callable[[], T], *, name: str | None = None, returns: Any = None) -> T:
    """What `function` gives, now and on every resume: it runs once, then the journal answers.

    Use it for what is neither a model nor a tool but differs from run to run (a configuration
    fetched from somewhere, a directory listing outside the workspace). Outside of a run it is
    ``function()``.

    Args:
        function: called without arguments.
        name: what it is called in the journal (default: the function's name).
        returns: the type of the value, where it is a class of your own.

    Raises:
        Diverged: a resumed loop was recorded to make another call here.
    """
    frame = registry.current_frame()
    if frame is None:
        return function()
    called = name or str(getattr(function, "__name__", "recorded"))
    return Kept(frame, called, known_classes([returns])).give(function)


class Kept:
    """One value of a run that the journal keeps: looked up when it is made, or given and sealed.

    Raises:
        Diverged: a resumed loop was recorded to make another call here.
    """

    def __init__(self, frame: Frame, name: str, known: Mapping[str, type] | None = None) -> None:
        self._session = session = frame.session
        self._known = known or {}
        self._call = frame.scope.here().identify(name, b"")
        self._answer: Answer | None = None
        if session.replay is None:
            return
        with session.lock:
            step = session.replay.take(self._call, Species.VALUE, b"")
            if step.advice is Advice.ANSWER and step.sealed is not None:
                session.follow(step.sealed.turn)
                self._answer = Answer(session, step.sealed, self._known)
        if step.advice is Advice.DIVERGED and step.sealed is not None:
            stop_diverged(session, self._call, step.sealed)

    def give(self, function: Callable[[], T]) -> T:
        """The recorded value, or what `function` gives."""
        if self._answer is not None:
            answer: T = self._answer.value()
            return answer
        return self._sealed(function())

    async def agive(self, function: Callable[[], Awaitable[T]]) -> T:
        """The recorded value, or what `function` gives when it is awaited."""
        if self._answer is not None:
            answer: T = self._answer.value()
            return answer
        return self._sealed(await function())

    def _sealed(self, value: T) -> T:
        session = self._session
        with session.recording():
            payload = session.value(lambda: CODECS.encode(value, self._known), self._call)
            session.append(Recorded(self._call, payload))
        return value


def now(tz: dt.tzinfo | None = None) -> dt.datetime:
    """``datetime.now(tz)``, the same again on resume."""
    stamp = recorded(lambda: dt.datetime.now(dt.UTC), name="crabrt.now")
    return stamp.astimezone(tz) if tz is not None else stamp.astimezone().replace(tzinfo=None)


def uuid4() -> uuid.UUID:
    """A random UUID, the same again on resume."""
    return recorded(uuid.uuid4, name="crabrt.uuid4")


def random() -> float:
    """A random number in [0, 1), the same again on resume."""
    return recorded(_random.random, name="crabrt.random")
