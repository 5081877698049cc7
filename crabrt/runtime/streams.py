"""Replies that arrive piece by piece: recorded as they flow through, replayed as they were.

A stream is never held back: each piece goes to the loop the moment it comes. The call is sealed
when the stream ends, is closed, or raises, with the pieces that were delivered and how it ended:
that is what the loop saw, and what it sees again on a replay.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any, Self

from crabrt.runtime.calls import Acting, Answer
from crabrt.runtime.scopes import FRAME, Frame, leave
from crabrt.runtime.waits import adrive, drive


def is_stream(value: Any) -> bool:
    """Whether `value` is a one-way stream: an (async) iterator that is neither container nor file.

    An open file is handed over to be used, and perhaps never read to its end.
    """
    return isinstance(value, Iterator | AsyncIterator) and not isinstance(value, io.IOBase)


class Inside:
    """Makes `frame` the current one while the function's own code runs."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> None:
        self._token = FRAME.set(self._frame)

    def __exit__(self, *_: object) -> None:
        leave(self._token)


def stepper(source: Iterator[Any]) -> Callable[[Any, BaseException | None], Callable[[], Any]]:
    """What the next step of `source` is, after its reader sent a value or threw an exception in."""
    generator = source if isinstance(source, Generator) else None

    def after(sent: Any, thrown: BaseException | None) -> Callable[[], Any]:
        if thrown is not None:
            if generator is None:
                raise thrown
            return partial(generator.throw, thrown)
        return partial(next, source) if generator is None else partial(generator.send, sent)

    return after


def record(call: Acting, frame: Frame, source: Iterator[Any]) -> Generator[Any, Any, Any]:
    """The items of `source`, recorded under `call`; `frame` is current while it produces them."""
    items: list[Any] = []
    after = stepper(source)
    step = after(None, None)
    try:
        while True:
            with Inside(frame):
                item = step()
            items.append(item)
            try:
                step = after((yield item), None)
            except GeneratorExit:
                raise
            except BaseException as thrown:  # noqa: BLE001  it is the source's to see
                step = after(None, thrown)
    except StopIteration as stop:
        drive(call.finish_stream(items, stop.value))
        return stop.value
    except GeneratorExit:
        try:
            _close(source)
        finally:
            drive(call.finish_stream(items))
        raise
    except BaseException as error:
        drive(call.fail(error, items))
        raise


async def arecord(
    call: Acting, frame: Frame, source: AsyncIterator[Any]
) -> AsyncGenerator[Any, Any]:
    """The same for async streams."""
    items: list[Any] = []
    generator = source if isinstance(source, AsyncGenerator) else None
    step = partial(anext, source)
    try:
        while True:
            with Inside(frame):
                item = await step()
            items.append(item)
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as thrown:
                if generator is None:
                    raise
                step = partial(generator.athrow, thrown)
            else:
                step = (
                    partial(anext, source) if generator is None else partial(generator.asend, sent)
                )
    except StopAsyncIteration:
        await adrive(call.finish_stream(items))
    except GeneratorExit:
        try:
            await _aclose(source)
        finally:
            await adrive(call.finish_stream(items))
        raise
    except BaseException as error:
        await adrive(call.fail(error, items))
        raise


def resting(call: Acting, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """`steps` of a child run, which does not count as running while its reader has the turn."""
    step = partial(next, steps)
    while True:
        try:
            item = step()
        except StopIteration as stop:
            return stop.value
        call.rest()
        try:
            sent = yield item
        except GeneratorExit:
            call.wake()
            steps.close()
            raise
        except BaseException as thrown:  # noqa: BLE001  it is the steps' to see
            call.wake()
            step = partial(steps.throw, thrown)
        else:
            call.wake()
            step = partial(steps.send, sent)


async def aresting(call: Acting, steps: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """The same for async steps."""
    step = partial(anext, steps)
    while True:
        try:
            item = await step()
        except StopAsyncIteration:
            return
        call.rest()
        try:
            sent = yield item
        except GeneratorExit:
            call.wake()
            await steps.aclose()
            raise
        except BaseException as thrown:  # noqa: BLE001  it is the steps' to see
            call.wake()
            step = partial(steps.athrow, thrown)
        else:
            call.wake()
            step = partial(steps.asend, sent)


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if callable(close):
        close()


async def _aclose(source: Any) -> None:
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    closing: Any = close() if callable(close) else None
    if hasattr(closing, "__await__"):
        await closing


def replay(answer: Answer) -> Generator[Any, Any, Any]:
    """The recorded items of a stream, then its end as it was."""
    try:
        items, end = answer.stream()
        yield from items
        drive(answer.in_turn())
        return end()
    finally:
        answer.over()


async def areplay(answer: Answer) -> AsyncGenerator[Any, Any]:
    """The recorded items of an async stream, then its end as it was."""
    try:
        items, end = answer.stream()
        for item in items:
            yield item
        await answer.cancelled()
        await adrive(answer.in_turn())
        end()
    finally:
        answer.over()


class StreamProxy:
    """A recorded stream that otherwise looks like the object the client returned.

    Iterating it records; every other attribute is the original's, so a client's stream wrapper
    keeps its headers and its context manager.

    Args:
        original: what the client returned; None for a replayed stream, which has only its items.
        items: the recording (or the replay) of it.
        call: the call, which ends with the stream; None for a replay.
    """

    def __init__(
        self,
        original: Any,
        items: Generator[Any, Any, Any] | AsyncGenerator[Any, Any],
        call: Acting | None = None,
    ) -> None:
        self._crabrt_original = original
        self._crabrt_items: Any = items
        self._crabrt_unread = call
        """The call, until the first item is asked for: the recording has not begun."""

    def __getattr__(self, name: str) -> Any:
        original = self.__dict__.get("_crabrt_original")
        if original is None:
            raise AttributeError(f"{name!r}: a replayed stream has its items only")
        return getattr(original, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._crabrt_unread = None
        return next(self._crabrt_items)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._crabrt_unread = None
        return await anext(self._crabrt_items)

    def close(self) -> Any:
        """Stop early: what was delivered is sealed. Of an async stream: an awaitable."""
        if hasattr(self._crabrt_items, "__anext__"):
            return self.aclose()
        unread, self._crabrt_unread = self._crabrt_unread, None
        if unread is not None:
            try:
                _close(self._crabrt_original)
            finally:
                drive(unread.finish_stream([]))
        return self._crabrt_items.close()

    async def aclose(self) -> None:
        """Stop early: what was delivered is sealed."""
        unread, self._crabrt_unread = self._crabrt_unread, None
        if unread is not None:
            try:
                await _aclose(self._crabrt_original)
            finally:
                await adrive(unread.finish_stream([]))
        await self._crabrt_items.aclose()

    def __enter__(self) -> Self:
        enter = getattr(type(self._crabrt_original), "__enter__", None)
        if enter is not None:
            enter(self._crabrt_original)
        return self

    def __exit__(self, *error: object) -> Any:
        self.close()
        leave_it = getattr(type(self._crabrt_original), "__exit__", None)
        return None if leave_it is None else leave_it(self._crabrt_original, *error)

    async def __aenter__(self) -> Self:
        enter = getattr(type(self._crabrt_original), "__aenter__", None)
        if enter is not None:
            await enter(self._crabrt_original)
        return self

    async def __aexit__(self, *error: object) -> Any:
        await self.aclose()
        leave_it = getattr(type(self._crabrt_original), "__aexit__", None)
        return None if leave_it is None else await leave_it(self._crabrt_original, *error)

    def __del__(self) -> None:
        unread = self.__dict__.get("_crabrt_unread")
        if unread is not None:  # dropped unread: a call that never ends would keep its turn open
            unread.drop()
