"""One implementation for sync and async callers: steps that yield what they must wait for.

The protocol of a call is written once, as a generator that yields a `Wait` wherever the loop may be
held back. `drive` runs it by blocking, `adrive` by awaiting; an event loop is never blocked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Wait(NamedTuple):
    """Wait for `future`, at most `limit_s` seconds (None: as long as it takes).

    What comes back into the generator is whether the future is done; it asks the future itself for
    its result or exception.

    Attributes:
        courtesy: for the loop's sake: who would block an event loop by it does not wait, and goes
            on as if it were done.
    """

    future: concurrent.futures.Future[Any]
    limit_s: float | None = None
    courtesy: bool = False


Steps = Generator[Wait, bool, T]


def drive(steps: Steps[T]) -> T:
    """Run `steps` to the end, blocking; its return value. An interrupt is raised in `steps`."""
    try:
        wait = next(steps)
        while True:
            if wait.courtesy and _is_in_loop():
                wait = steps.send(True)
                continue
            try:
                done, _ = concurrent.futures.wait([wait.future], timeout=wait.limit_s)
            except BaseException as error:
                steps.throw(error)  # what is on record of it is written while it ends
                raise
            wait = steps.send(bool(done))
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()  # interrupted while waiting: what it began is undone now, not at a gc


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def adrive(steps: Steps[T]) -> T:
    """Run `steps` to the end, awaiting; its return value. A cancellation is raised in `steps`."""
    try:
        wait = next(steps)
        while True:
            if not wait.future.done():
                try:
                    await asyncio.wait([asyncio.wrap_future(wait.future)], timeout=wait.limit_s)
                except asyncio.CancelledError as error:
                    steps.throw(error)  # what is on record of it is written while it ends
                    raise
            wait = steps.send(wait.future.done())
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()  # cancelled while waiting: what it began is undone now, not at a gc


async def in_thread(make: Callable[[], T], give_back: Callable[[T], None]) -> T:
    """What `make` makes in a worker thread; given back if the caller is cancelled meanwhile.

    A thread cannot be cancelled: without this, what it makes would be nobody's, and stay.
    """
    lock, made, wanted = threading.Lock(), list[T](), True
    settled = threading.Event()

    def work() -> T:
        try:
            value = make()
            with lock:
                if wanted:
                    made.append(value)
                    return value
            give_back(value)
            return value
        finally:
            settled.set()

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with lock:
            wanted = False
        for value in made:
            await asyncio.to_thread(give_back, value)
        await asyncio.to_thread(settled.wait)  # who tries again finds nothing taken
        raise
