"""One implementation for sync and async callers: steps that yield what they must wait for.

The protocol of a call is written once, as a generator that yields a `Wait` wherever the loop may be
held back. `drive` runs it by blocking, `adrive` by awaiting; an event loop is never blocked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Wait(NamedTuple):
    """Wait for `future`, at most `limit_s` seconds (None: as long as it takes).

    What comes back into the generator is whether the future is done; it asks the future itself for
    its result or exception.
    """

    future: concurrent.futures.Future[Any]
    limit_s: float | None = None


Steps = Generator[Wait, bool, T]


def drive(steps: Steps[T]) -> T:
    """Run `steps` to the end, blocking; its return value."""
    try:
        wait = next(steps)
        while True:
            done, _ = concurrent.futures.wait([wait.future], timeout=wait.limit_s)
            wait = steps.send(bool(done))
    except StopIteration as stop:
        value: T = stop.value
        return value


async def adrive(steps: Steps[T]) -> T:
    """Run `steps` to the end, awaiting; its return value."""
    try:
        wait = next(steps)
        while True:
            if not wait.future.done():
                await asyncio.wait([asyncio.wrap_future(wait.future)], timeout=wait.limit_s)
            wait = steps.send(wait.future.done())
    except StopIteration as stop:
        value: T = stop.value
        return value
