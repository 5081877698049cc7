"""The shapes an agent can have: function, coroutine function, generator, async generator.

Each is of the same kind as the user's own function, and does the same: open a run (or a child run),
call the loop inside of it, seal how it ended, let go.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Answer
from crabrt.runtime.entering import Entry
from crabrt.runtime.loops import Loop, close, give_back
from crabrt.runtime.scopes import Frame, watch_tasks
from crabrt.runtime.session import Session
from crabrt.runtime.streams import Inside, arecord, areplay, aresting, record, replay, resting
from crabrt.runtime.waits import adrive, drive, in_thread

_OWN_THREADS = "crabrt-"
"""How the names of this package's threads begin."""


def shaped(made: Loop) -> Any:
    """The function the user gets: of the same kind as his own."""
    function = made.function
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        wrapped = _generator(made)
    elif inspect.iscoroutinefunction(function):
        wrapped = _coroutine(made)
    else:
        wrapped = _function(made)
    registry.add_agent(made.name, wrapped)
    return wrapped


def _function(made: Loop) -> Any:
    function = made.function

    def run(entry: Entry | None, args: Any, kwargs: Any) -> Any:
        if entry is None:
            return function(*args, **kwargs)
        if entry.session is None:
            return made.finished(entry)
        session = entry.session
        try:
            value = _body(made, session, args, kwargs)
        finally:
            close(session)
        session.tell()
        return value

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        outer = made.outer()
        if outer is not None:
            outcome = drive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                return outcome.value()
            inner = Inside(outcome.frame(outer))
            return _sealed(
                outcome, inner, lambda: run(made.child(outcome, args, kwargs), args, kwargs)
            )
        config = made.config()
        if config.disable:
            return function(*args, **kwargs)
        return run(made.opened(config, args, kwargs), args, kwargs)

    def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = made.reopening(name, override)
        return run(entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


def _body(made: Loop, session: Session, args: Any, kwargs: Any) -> Any:
    try:
        with Inside(Frame(session, session.scope)):
            value = made.function(*args, **kwargs)
    except BaseException as error:
        drive(made.ended(session, None, error))
        raise
    drive(made.ended(session, value, None))
    return value


def _sealed(call: Acting, inner: Inside, run: Callable[[], Any]) -> Any:
    """Run a child as the one call that it is to its parent."""
    try:
        with inner:  # where there is no child run, its calls are the parent's
            value = run()
    except BaseException as error:
        drive(call.fail(error))
        raise
    drive(call.finish(value))
    call.session.inner_checkpoint()
    return value


def _coroutine(made: Loop) -> Any:
    function = made.function

    async def run(entry: Entry | None, args: Any, kwargs: Any) -> Any:
        if entry is None:
            return await function(*args, **kwargs)
        if entry.session is None:
            return made.finished(entry)
        session = entry.session
        session.scope.adopt()
        watch_tasks()
        try:
            value = await _abody(made, session, args, kwargs)
        finally:
            await asyncio.to_thread(close, session)
        session.tell()
        return value

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        outer = made.outer()
        if outer is not None:
            outcome = await adrive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                await outcome.cancelled()
                return outcome.value()
            return await _asealed(
                outcome,
                outcome.frame(outer),
                lambda: made.child(outcome, args, kwargs),
                lambda entry: run(entry, args, kwargs),
            )
        config = made.config()
        if config.disable:
            return await function(*args, **kwargs)
        entry = await in_thread(lambda: made.opened(config, args, kwargs), give_back)
        return await run(entry, args, kwargs)

    async def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = await in_thread(
            lambda: made.reopening(name, override), lambda opened: give_back(opened[0])
        )
        return await run(entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


async def _abody(made: Loop, session: Session, args: Any, kwargs: Any) -> Any:
    try:
        with Inside(Frame(session, session.scope)):
            value = await made.function(*args, **kwargs)
    except BaseException as error:
        await adrive(made.ended(session, None, error))
        raise
    await adrive(made.ended(session, value, None))
    return value


async def _asealed(
    call: Acting,
    inner: Frame,
    child: Callable[[], Entry | None],
    run: Callable[[Entry | None], Any],
) -> Any:
    try:
        entry = await in_thread(child, give_back)
        with Inside(inner):  # where there is no child run, its calls are the parent's
            value = await run(entry)
    except BaseException as error:
        await adrive(call.fail(error))
        raise
    await adrive(call.finish(value))
    call.session.inner_checkpoint()
    return value


def _generator(made: Loop) -> Any:
    """Agents that yield their progress. Each step runs inside the run, each yield outside of it.

    As a generator function does nothing until it is iterated, the run begins with the first step:
    one that is dropped before has never been.
    """
    is_async = inspect.isasyncgenfunction(made.function)

    @functools.wraps(made.function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def opening() -> tuple[Entry | None, Any, Any]:
            config = made.config()
            return (None if config.disable else made.opened(config, args, kwargs)), args, kwargs

        if is_async:
            return _anested(made, args, kwargs, lambda: _asteps(made, opening))
        return _nested(made, args, kwargs, lambda: _steps(made, opening))

    def take_up(name: str, /, **override: Any) -> Any:
        def opening() -> tuple[Entry | None, Any, Any]:
            entry, arguments = made.reopening(name, override)
            return entry, (), arguments

        return _asteps(made, opening) if is_async else _steps(made, opening)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


Opening = Callable[[], tuple[Entry | None, Any, Any]]


def _nested(
    made: Loop, args: Any, kwargs: Any, alone: Callable[[], Generator[Any, Any, Any]]
) -> Generator[Any, Any, Any]:
    """As a child run, where it is called inside of a run: to that, it is one call, a stream."""
    outer = made.outer()
    if outer is None:
        return (yield from alone())
    outcome = drive(made.call_in(outer, args, kwargs))
    if isinstance(outcome, Answer):
        return (yield from replay(outcome))
    source = _steps(made, lambda: (made.child(outcome, args, kwargs), args, kwargs))
    value = yield from resting(outcome, record(outcome, outcome.frame(outer), source))
    outcome.session.inner_checkpoint()
    return value


async def _anested(
    made: Loop, args: Any, kwargs: Any, alone: Callable[[], AsyncGenerator[Any, Any]]
) -> AsyncGenerator[Any, Any]:
    outer = made.outer()
    outcome = None
    if outer is None:
        items = alone()
    else:
        outcome = await adrive(made.call_in(outer, args, kwargs))
        if isinstance(outcome, Answer):
            items = areplay(outcome)
        else:
            acting = outcome
            source = _asteps(made, lambda: (made.child(acting, args, kwargs), args, kwargs))
            items = aresting(outcome, arecord(outcome, outcome.frame(outer), source))
    step = functools.partial(anext, items)
    try:
        while True:
            item = await step()
            try:
                step = functools.partial(items.asend, (yield item))
            except GeneratorExit:
                await items.aclose()
                raise
            except BaseException as thrown:  # noqa: BLE001  it is the loop's to see
                step = functools.partial(items.athrow, thrown)
    except StopAsyncIteration:
        if isinstance(outcome, Acting):
            outcome.session.inner_checkpoint()


def _steps(made: Loop, opening: Opening) -> Generator[Any, Any, Any]:
    entry, args, kwargs = opening()
    if entry is None:
        return (yield from made.function(*args, **kwargs))
    if entry.session is None:
        return made.finished(entry)
    session = entry.session
    frame = Frame(session, session.scope)
    source = made.function(*args, **kwargs)
    step = functools.partial(next, source)
    elsewhere = False
    try:
        while True:
            session.scope.adopt()  # each step may be asked for by another thread
            with Inside(frame):
                item = step()
            try:
                step = functools.partial(source.send, (yield item))
            except GeneratorExit:
                raise
            except BaseException as thrown:  # noqa: BLE001  it is the loop's to see
                step = functools.partial(source.throw, thrown)
    except StopIteration as stop:
        drive(session.end(None, None))
        value = stop.value
    except BaseException as error:
        here = threading.current_thread().name
        elsewhere = isinstance(error, GeneratorExit) and here.startswith(_OWN_THREADS)
        if elsewhere:  # garbage, collected there: ending waits for them
            ending = functools.partial(_end_early, made, session, source, error)
            threading.Thread(target=_and_close, args=(ending, session)).start()
        else:
            _end_early(made, session, source, error)
        raise
    finally:
        if not elsewhere:
            close(session)
    session.tell()
    return value


def _end_early(
    made: Loop, session: Session, source: Generator[Any, Any, Any], error: BaseException
) -> None:
    try:
        with Inside(Frame(session, session.scope)):
            source.close()
    finally:
        drive(made.ended(session, None, error))


def _and_close(ending: Callable[[], None], session: Session) -> None:
    try:
        ending()
    finally:
        close(session)


async def _asteps(made: Loop, opening: Opening) -> AsyncGenerator[Any, Any]:
    entry, args, kwargs = await in_thread(opening, lambda opened: give_back(opened[0]))
    source = made.function(*args, **kwargs)
    session = entry.session if entry is not None else None
    if session is None:
        async for item in source:
            yield item
        return
    frame = Frame(session, session.scope)
    step = functools.partial(anext, source)
    watch_tasks()
    try:
        while True:
            session.scope.adopt()
            with Inside(frame):
                item = await step()
            try:
                step = functools.partial(source.asend, (yield item))
            except GeneratorExit:
                raise
            except BaseException as thrown:  # noqa: BLE001  it is the loop's to see
                step = functools.partial(source.athrow, thrown)
    except StopAsyncIteration:
        await adrive(session.end(None, None))
    except BaseException as error:
        try:
            with Inside(frame):
                await source.aclose()
        finally:
            await adrive(made.ended(session, None, error))
        raise
    finally:
        close(session)
    session.tell()
