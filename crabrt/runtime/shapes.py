"""The shapes an agent can have: function, coroutine function, generator, async generator.

Each is of the same kind as the user's own function, and does the same: open a run (or a child run),
call the loop inside of it, seal how it ended, let go.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Answer
from crabrt.runtime.entering import Entry
from crabrt.runtime.loops import Loop, close, open_or_warn
from crabrt.runtime.scopes import Frame, watch_tasks
from crabrt.runtime.session import Session
from crabrt.runtime.streams import Inside
from crabrt.runtime.waits import adrive, drive


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
        outer = registry.current_frame()
        if outer is not None:
            outcome = drive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                return outcome.value()
            return _sealed(outcome, lambda: run(made.child(outcome, args, kwargs), args, kwargs))
        config = made.config()
        if config.disable:
            return function(*args, **kwargs)
        return run(open_or_warn(lambda: made.opening(config, args, kwargs), config), args, kwargs)

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


def _sealed(call: Acting, run: Callable[[], Any]) -> Any:
    """Run a child as the one call that it is to its parent."""
    try:
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
        outer = registry.current_frame()
        if outer is not None:
            outcome = await adrive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                return outcome.value()
            return await _asealed(made, outcome, run, args, kwargs)
        config = made.config()
        if config.disable:
            return await function(*args, **kwargs)
        entry = await asyncio.to_thread(
            open_or_warn, lambda: made.opening(config, args, kwargs), config
        )
        return await run(entry, args, kwargs)

    async def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = await asyncio.to_thread(made.reopening, name, override)
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
    made: Loop, call: Acting, run: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    try:
        entry = await asyncio.to_thread(made.child, call, args, kwargs)
        value = await run(entry, args, kwargs)
    except BaseException as error:
        await adrive(call.fail(error))
        raise
    await adrive(call.finish(value))
    call.session.inner_checkpoint()
    return value


def _generator(made: Loop) -> Any:
    """Agents that yield their progress. Each step runs inside the run, each yield outside of it."""
    shape = _asteps if inspect.isasyncgenfunction(made.function) else _steps

    @functools.wraps(made.function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        config = made.config()
        if config.disable or registry.current_frame() is not None:
            return made.function(*args, **kwargs)
        entry = open_or_warn(lambda: made.opening(config, args, kwargs), config)
        return shape(made, entry, args, kwargs)

    def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = made.reopening(name, override)
        return shape(made, entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


def _steps(made: Loop, entry: Entry | None, args: Any, kwargs: Any) -> Generator[Any, Any, Any]:
    source, sent = made.function(*args, **kwargs), None
    session = entry.session if entry is not None else None
    if session is None:
        return (yield from source)
    try:
        while True:
            with Inside(Frame(session, session.scope)):
                item = source.send(sent)
            sent = yield item
    except StopIteration as stop:
        drive(session.end(None, None))
        return stop.value
    except BaseException as error:
        source.close()
        drive(made.ended(session, None, error))
        raise
    finally:
        close(session)


async def _asteps(
    made: Loop, entry: Entry | None, args: Any, kwargs: Any
) -> AsyncGenerator[Any, Any]:
    source = made.function(*args, **kwargs)
    session = entry.session if entry is not None else None
    if session is None:
        async for item in source:
            yield item
        return
    session.scope.adopt()
    watch_tasks()
    try:
        while True:
            with Inside(Frame(session, session.scope)):
                item = await anext(source)
            yield item
    except StopAsyncIteration:
        await adrive(session.end(None, None))
    except BaseException as error:  # a closing generator may not await before it has let go
        drive(made.ended(session, None, error))
        raise
    finally:
        close(session)
