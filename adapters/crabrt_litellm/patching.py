"""Where the wrapped functions are put, and how the originals come back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_NAMES = ("completion", "acompletion")


@dataclass(frozen=True)
class _Place:
    """A name in a module that held an original."""

    module: ModuleType
    name: str
    original: Callable[..., Any]
    wrapped: Callable[..., Any]


_lock = threading.Lock()
_places: list[_Place] = []


def instrument() -> None:
    """Make ``litellm.completion`` and ``litellm.acompletion`` model calls of crabrt.

    They are replaced in ``litellm`` itself and, as far as possible, where they are already: in
    every module loaded so far that holds one under a global name (``from litellm import
    completion``). What a class, a closure, a default argument or a ``functools.partial`` took
    before stays the plain function: instrument first, where you can. Doing it twice is doing it
    once.

    Raises:
        ImportError: litellm is not installed.
    """
    import litellm  # noqa: PLC0415 - takes seconds

    import crabrt  # noqa: PLC0415 - importing this package stays free of effects and quick
    from crabrt_litellm import replies  # noqa: PLC0415 - needs litellm

    with _lock:
        if _places:
            return
        replies.register()
        for name in _NAMES:
            original = getattr(litellm, name)
            wrapped = crabrt.model(name=f"litellm.{name}", usage=replies.usage_of)(original)
            for module, held_as in _holders(litellm, original):
                _places.append(_Place(module, held_as, original, wrapped))
        for place in _places:
            setattr(place.module, place.name, place.wrapped)


def uninstrument() -> None:
    """Put the originals back wherever `instrument` replaced them, unless replaced again since.

    Modules that were loaded in between and took the wrapped functions keep them; outside of a run
    these are the plain ones.
    """
    with _lock:
        for place in _places:
            if vars(place.module).get(place.name) is place.wrapped:
                setattr(place.module, place.name, place.original)
        _places.clear()


def _holders(litellm: ModuleType, original: Callable[..., Any]) -> list[tuple[ModuleType, str]]:
    """Every (module, global name) that is `original`; of litellm's own modules only the top."""
    found: list[tuple[ModuleType, str]] = []
    loaded: list[object] = list(sys.modules.values())  # programs put other things in there, too
    for module in loaded:
        if not isinstance(module, ModuleType):
            continue
        name = module.__name__
        if module is not litellm and (name == "litellm" or name.startswith("litellm.")):
            continue  # inside, litellm calls itself: that is part of the one call
        found += [(module, key) for key, value in list(vars(module).items()) if value is original]
    return found
