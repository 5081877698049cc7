"""Tools and models: ordinary callables whose calls a run records, gates and replays.

A wrapped callable keeps its signature and its kind (function, coroutine function, generator,
async generator). Outside of a run it *is* the plain function.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from crabrt.process.shell import ShellResult
from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Answer, begin
from crabrt.runtime.replay import Species
from crabrt.runtime.requests import Binder
from crabrt.runtime.scopes import Frame, watch_tasks
from crabrt.runtime.specs import Spec, Usage, parse_effects
from crabrt.runtime.streams import (
    Inside,
    StreamProxy,
    arecord,
    areplay,
    is_stream,
    record,
    replay,
)
from crabrt.runtime.structured import known_classes
from crabrt.runtime.waits import adrive, drive

P = ParamSpec("P")
R = TypeVar("R")


@overload
def tool(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: str = "auto",
    kind: str | None = None,
    in_doubt: str | None = None,
    volatile: tuple[str, ...] = (),
    target: Callable[..., str] | None = None,
    idempotency_key: Callable[..., str] | None = None,
    check: Callable[..., Any] | None = None,
    undo: Callable[..., Any] | None = None,
    key: Callable[..., Any] | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: str = "auto",
    kind: str | None = None,
    in_doubt: str | None = None,
    volatile: tuple[str, ...] = (),
    target: Callable[..., str] | None = None,
    idempotency_key: Callable[..., str] | None = None,
    check: Callable[..., Any] | None = None,
    undo: Callable[..., Any] | None = None,
    key: Callable[..., Any] | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
) -> Any:
    """Make a function a tool of the agent loop: what it does to the world is part of its turn.

    Args:
        function: what to wrap, where the decorator is used bare.
        name: what it is called in the journal (default: the function's name).
        effect: ``auto`` (observed), ``none``, ``files``, ``processes``, or ``external``: something
            outside this machine, which cannot be taken back. An external call waits until
            everything before it is durable, and is never made twice.
        kind: of an external effect: ``read``, ``idempotent``, ``compensable``, ``irreversible``
            (the default), ``read-then-write``. It is recorded, for people to read.
        in_doubt: what a resume does about an external call that was cut off, and may or may not
            have happened: ``check`` (the default where `check` is given) asks `check`; ``retry``
            makes it (again); ``skip`` gives the loop a `Skipped`; ``ask`` (the default) and
            ``fail`` stop with `InDoubt`. What counts is what is declared when it is resumed.
        volatile: names of arguments that differ from call to call and identify nothing.
        target: names what the call acts on; it and the next three get the call's arguments by name.
        idempotency_key: gives the key by which two calls are the same effect.
        check: tells whether a call in doubt happened: `Done(result)` (the loop gets the result),
            `NOT_DONE` (it is made), or `UNKNOWN` (stops with `InDoubt`); True is ``Done(None)``,
            False is `NOT_DONE`. May be async.
        undo: takes the effect back; gets ``result=`` too. That there is one is recorded; crabrt
            never calls it.
        key: called with the call's arguments; stands for them when a resumed call is compared
            with the recorded one.
        returns: the type of the result, where the annotation doesn't say it.
        raises: exception classes that come back as themselves on replay.

    Raises:
        UsageError: an unknown word for `effect`, `kind` or `in_doubt`.
    """
    effects = parse_effects(
        effect=effect, kind=kind, in_doubt=in_doubt, volatile=volatile, target=target,
        idempotency_key=idempotency_key, check=check, undo=undo,
    )  # fmt: skip

    def decorate(plain: Callable[..., Any]) -> Callable[..., Any]:
        spec = Spec(name or _name(plain), _known(plain, returns, raises), key, effects)
        return wrap(plain, spec, Species.TOOL)

    return decorate if function is None else decorate(function)


@overload
def model(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def model(
    *,
    name: str | None = None,
    key: Callable[..., Any] | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    usage: Callable[[Any], Usage] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def model(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    key: Callable[..., Any] | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    usage: Callable[[Any], Usage] | None = None,
) -> Any:
    """Make a function a model call of the agent loop: while it waits, the last turn is captured.

    Args:
        function: what to wrap, where the decorator is used bare.
        name: what it is called in the journal (default: the function's name).
        key: called with the call's arguments; stands for them when a resumed call is compared
            with the recorded one. Default: role, content, tool calls, ids and names of the
            messages, the model and the tools; without messages, all arguments.
        returns: the type of the reply, where the annotation doesn't say it.
        raises: exception classes that come back as themselves on replay.
        usage: reads tokens and cost off a reply (of a stream: off the list of its pieces).
    """

    def decorate(plain: Callable[..., Any]) -> Callable[..., Any]:
        spec = Spec(name or _name(plain), _known(plain, returns, raises), key, None, usage)
        return wrap(plain, spec, Species.MODEL)

    return decorate if function is None else decorate(function)


def wrap(plain: Callable[..., Any], spec: Spec, species: Species) -> Callable[..., Any]:
    """`plain`, recorded as `spec`; of the same kind, with the same signature."""
    binder = Binder(plain)
    if inspect.iscoroutinefunction(plain):
        return _wrap_coroutine(plain, spec, species, binder)
    if inspect.isasyncgenfunction(plain):
        return _wrap_async_generator(plain, spec, species, binder)
    if inspect.isgeneratorfunction(plain):
        return _wrap_generator(plain, spec, species, binder)
    return _wrap_function(plain, spec, species, binder)


def _frame(species: Species) -> Frame | None:
    frame = registry.current_frame()
    if frame is None or (frame.inside == Species.MODEL.value and species is Species.MODEL):
        return None  # outside of a run; or a client inside a model call, which is one call
    watch_tasks()
    return frame


def _wrap_function(
    plain: Callable[..., Any], spec: Spec, species: Species, binder: Binder
) -> Callable[..., Any]:
    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        frame = _frame(species)
        if frame is None:
            return plain(*args, **kwargs)
        outcome = drive(begin(frame, spec, species, binder.bind(args, kwargs)))
        if isinstance(outcome, Answer):
            return StreamProxy(None, replay(outcome)) if outcome.streamed else outcome.value()
        inner = outcome.frame(frame)
        try:
            with Inside(inner):
                value = plain(*args, **kwargs)
        except BaseException as error:
            drive(outcome.fail(error))
            raise
        if is_stream(value):
            return _proxy(outcome, inner, value)
        drive(outcome.finish(value))
        return value

    return wrapped


def _proxy(call: Acting, frame: Frame, value: Any, *, awaited: bool = False) -> Any:
    # Some clients return one class for both ways of iterating; who awaited it goes the async way.
    if hasattr(value, "__next__") and not (awaited and hasattr(value, "__anext__")):
        return StreamProxy(value, record(call, frame, value), call)
    return StreamProxy(value, arecord(call, frame, value), call)


def _wrap_coroutine(
    plain: Callable[..., Any], spec: Spec, species: Species, binder: Binder
) -> Callable[..., Any]:
    @functools.wraps(plain)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        frame = _frame(species)
        if frame is None:
            return await plain(*args, **kwargs)
        outcome = await adrive(begin(frame, spec, species, binder.bind(args, kwargs)))
        if isinstance(outcome, Answer):
            if outcome.streamed:
                return StreamProxy(None, areplay(outcome))
            await outcome.cancelled()
            return outcome.value()
        inner = outcome.frame(frame)
        try:
            with Inside(inner):
                value = await plain(*args, **kwargs)
        except BaseException as error:
            await adrive(outcome.fail(error))
            raise
        if is_stream(value):
            return _proxy(outcome, inner, value, awaited=True)
        await adrive(outcome.finish(value))
        return value

    return wrapped


def _wrap_generator(
    plain: Callable[..., Any], spec: Spec, species: Species, binder: Binder
) -> Callable[..., Any]:
    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        frame = _frame(species)
        if frame is None:
            return (yield from plain(*args, **kwargs))
        outcome = drive(begin(frame, spec, species, binder.bind(args, kwargs)))
        if isinstance(outcome, Answer):
            return (yield from replay(outcome))
        return (yield from record(outcome, outcome.frame(frame), plain(*args, **kwargs)))

    return wrapped


def _wrap_async_generator(
    plain: Callable[..., Any], spec: Spec, species: Species, binder: Binder
) -> Callable[..., Any]:
    @functools.wraps(plain)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        frame = _frame(species)
        if frame is None:
            source = plain(*args, **kwargs)
        else:
            outcome = await adrive(begin(frame, spec, species, binder.bind(args, kwargs)))
            if isinstance(outcome, Answer):
                source = areplay(outcome)
            else:
                source = arecord(outcome, outcome.frame(frame), plain(*args, **kwargs))
        async for item in source:
            yield item

    return wrapped


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _known(function: Callable[..., Any], returns: Any, raises: Any) -> dict[str, type]:
    classes = [raises] if isinstance(raises, type) else list(raises)
    return known_classes([ShellResult, returns, _return_hint(function), *classes])


def _return_hint(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # annotations only a type checker resolves
        return None
