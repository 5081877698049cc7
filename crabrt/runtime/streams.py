"""Replies that arrive piece by piece: recorded as they flow through, replayed as they were.

A stream is never held back: each piece goes to the loop the moment it comes. The call is sealed
when the stream ends, is closed, or raises; a stream that was dropped half-way is sealed with the
pieces that were delivered, as that is what the loop saw.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Self

from crabrt.runtime.calls import Acting, Answer
from crabrt.runtime.scopes import FRAME, Frame
from crabrt.runtime.waits import adrive, drive


def is_stream(value: Any) -> bool:
    """Whether `value` is a one-way stream: an (async) iterator that is not a container."""
    return isinstance(value, Iterator | AsyncIterator)


class Inside:
    """Makes `frame` the current one while the function's own code runs."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> None:
        self._token = FRAME.set(self._frame)

    def __exit__(self, *_: object) -> None:
        FRAME.reset(self._token)


def record(call: Acting, frame: Frame, source: Iterator[Any]) -> Generator[Any, Any, Any]:
    """The items of `source`, recorded under `call`; `frame` is current while it produces them."""
    items: list[Any] = []
    sent: Any = None
    generator = source if isinstance(source, Generator) else None
    try:
        while True:
            with Inside(frame):
                item = next(source) if generator is None or sent is None else generator.send(sent)
            items.append(item)
            sent = yield item
    except StopIteration as stop:
        drive(call.finish(items, streamed=True))
        return stop.value
    except GeneratorExit:
        _close(source)
        drive(call.finish(items, streamed=True))
        raise
    except BaseException as error:
        drive(call.fail(error))
        raise


async def arecord(
    call: Acting, frame: Frame, source: AsyncIterator[Any]
) -> AsyncGenerator[Any, Any]:
    """The same for async streams."""
    items: list[Any] = []
    try:
        while True:
            with Inside(frame):
                item = await anext(source)
            items.append(item)
            yield item
    except StopAsyncIteration:
        await adrive(call.finish(items, streamed=True))
    except GeneratorExit:
        # An async generator that is being closed may not await before it has let go.
        drive(call.finish(items, streamed=True))
        raise
    except BaseException as error:
        await adrive(call.fail(error))
        raise


def _close(source: Iterator[Any]) -> None:
    close = getattr(source, "close", None)
    if callable(close):
        close()


def replay(answer: Answer) -> Generator[Any, Any, None]:
    """The recorded items of a stream."""
    yield from answer.value()


async def areplay(answer: Answer) -> AsyncGenerator[Any, Any]:
    """The recorded items of an async stream."""
    for item in answer.value():
        yield item


class StreamProxy:
    """A recorded stream that otherwise looks like the object the client returned.

    Iterating it records; every other attribute is the original's, so a client's stream wrapper
    keeps its headers, its ``close`` and its context manager.
    """

    def __init__(self, original: Any, wrap: Callable[[Any], Any]) -> None:
        self._crabrt_original = original
        self._crabrt_items = wrap(original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._crabrt_original, name)

    def __iter__(self) -> Iterator[Any]:
        return self._crabrt_items  # type: ignore[no-any-return]

    def __next__(self) -> Any:
        return next(self._crabrt_items)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._crabrt_items  # type: ignore[no-any-return]

    async def __anext__(self) -> Any:
        return await anext(self._crabrt_items)

    def close(self) -> None:
        """Stop early: what was delivered is sealed."""
        self._crabrt_items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def aclose(self) -> None:
        """Stop early: what was delivered is sealed."""
        await self._crabrt_items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
