"""A loop that takes parallel results as they come is told them in that order when it is resumed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import crabrt
from crabrt.core.entries import CallId
from crabrt.runtime.arrivals import Arrivals
from crabrt.runtime.waits import adrive, drive

WIDTH, ROUNDS = 4, 3


class Agent:
    """Rounds of parallel calls; they end in an order of their own in each. The first time, it is
    killed after the last round but one."""

    def __init__(self, ws: Path, how: str, *, resumed: bool) -> None:
        self.resumed, self.how = resumed, how
        self.acted: list[int] = []

        @crabrt.model
        def think(taken: list[int]) -> str:
            return f"seen {taken}"

        self.think = think

        @crabrt.agent(workspace=ws, name="as-they-come")
        async def loop() -> list[int]:
            taken: list[int] = []
            for n in range(ROUNDS):
                think(taken)
                await getattr(self, how)(n, taken)
                think(taken)
                if n == ROUNDS - 2 and not self.resumed:
                    os.kill(os.getpid(), signal.SIGKILL)
            return taken

        self.loop = loop

    def order(self, n: int) -> list[int]:
        """In which order those of round `n` end: never as they began."""
        ids = [n * WIDTH + k for k in range(WIDTH)]
        return ids[::-1] if n % 2 else ids[2:] + ids[:2]

    def gates(self, n: int) -> dict[int, asyncio.Event]:
        return {one: asyncio.Event() for one in self.order(n)}

    async def tools(self, n: int):
        """The calls of round `n`; each lets the next one go when it ends."""
        gates, order = self.gates(n), self.order(n)
        gates[order[0]].set()

        async def act(one: int) -> int:
            await gates[one].wait()
            self.acted.append(one)
            following = order.index(one) + 1
            if following < len(order):
                loop = asyncio.get_running_loop()
                loop.call_later(0.02, gates[order[following]].set)
            return one

        return crabrt.tool(effect="none")(act)

    async def as_completed(self, n: int, taken: list[int]) -> None:
        act = await self.tools(n)
        tasks = [asyncio.create_task(act(one)) for one in sorted(self.order(n))]
        taken.extend([await task for task in asyncio.as_completed(tasks)])

    async def wait(self, n: int, taken: list[int]) -> None:
        act = await self.tools(n)
        left = {asyncio.create_task(act(one)) for one in sorted(self.order(n))}
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            taken += [task.result() for task in done]

    async def workers(self, n: int, taken: list[int]) -> None:
        act = await self.tools(n)

        async def work(one: int) -> None:
            result = await act(one)
            await asyncio.sleep(0)  # what a worker does with it
            self.think([result])
            taken.append(result)

        async with asyncio.TaskGroup() as group:
            for one in sorted(self.order(n)):
                group.create_task(work(one))

    async def streams(self, n: int, taken: list[int]) -> None:
        act = await self.tools(n)
        plain = act.__wrapped__

        @crabrt.model(name="stream")
        async def stream(one: int):
            yield "first"
            yield await plain(one)

        async def read(one: int) -> None:
            pieces = [piece async for piece in stream(one)]
            taken.append(pieces[-1])

        await asyncio.gather(*map(read, sorted(self.order(n))))

    async def threads(self, n: int, taken: list[int]) -> None:
        gates = {one: threading.Event() for one in self.order(n)}
        order, done = self.order(n), queue.SimpleQueue[int]()
        gates[order[0]].set()

        @crabrt.tool(effect="none", name="threaded")
        def act(one: int) -> int:
            assert gates[one].wait(30)
            self.acted.append(one)
            following = order.index(one) + 1
            if following < len(order):
                threading.Timer(0.05, gates[order[following]].set).start()
            return one

        with concurrent.futures.ThreadPoolExecutor(WIDTH) as pool:
            for one in sorted(order):
                pool.submit(lambda one=one: done.put(act(one)))
            taken += [done.get(timeout=30) for _ in order]


@pytest.mark.parametrize("how", ["as_completed", "wait", "workers", "streams", "threads"])
def test_a_resumed_loop_takes_them_as_before(ws: Path, home: Path, killed, how) -> None:
    killed(lambda: asyncio.run(Agent(ws, how, resumed=False).loop()))
    agent = Agent(ws, how, resumed=True)
    taken = asyncio.run(agent.loop.resume("last"))
    assert taken == [one for n in range(ROUNDS) for one in agent.order(n)]
    again = Agent(ws, how, resumed=True)
    assert asyncio.run(again.loop.resume("last")) == taken
    assert not again.acted


def test_a_call_that_is_not_made_holds_up_nobody(ws: Path, home: Path, killed) -> None:
    """A heartbeat beside the loop: it comes when its time comes, and nobody waits for that."""

    def made(beats_s: float, *, resumed: bool):
        beaten = asyncio.Event()

        @crabrt.tool(effect="none")
        async def beat() -> None:
            beaten.set()

        @crabrt.model
        async def think(n: int) -> int:
            await beaten.wait()
            return n

        async def heartbeat() -> None:
            await asyncio.sleep(beats_s)
            await beat()

        @crabrt.agent(workspace=ws, name="beating")
        async def loop() -> int:
            heart = asyncio.create_task(heartbeat())
            total = sum([await think(n) for n in range(5)])
            heart.cancel()
            if not resumed:
                os.kill(os.getpid(), signal.SIGKILL)
            return total

        return loop

    killed(lambda: asyncio.run(made(0.01, resumed=False)()))
    assert asyncio.run(made(1e6, resumed=True).resume("last")) == 10


def test_nor_does_a_plain_tool_in_a_coroutine(ws: Path, home: Path, killed) -> None:
    """It blocks the loop's own thread: the others could not be asked meanwhile."""

    def made(*, resumed: bool):
        late = threading.Event()

        @crabrt.tool(effect="none")
        def slow() -> str:
            assert late.wait(30)
            return "slow"

        @crabrt.tool(effect="none")
        def fast() -> str:
            return "fast"

        async def beside() -> str:
            value = await asyncio.to_thread(fast)
            late.set()
            return value

        @crabrt.agent(workspace=ws, name="plain")
        async def loop() -> list[str]:
            task = asyncio.create_task(beside())
            if not resumed:
                await asyncio.to_thread(late.wait)
            first = slow()
            both = [first, await task]
            if not resumed:
                os.kill(os.getpid(), signal.SIGKILL)
            return both

        return loop

    killed(lambda: asyncio.run(made(resumed=False)()))
    assert asyncio.run(made(resumed=True).resume("last")) == ["slow", "fast"]


CALLS = [CallId("0", "call", n) for n in range(8)]


@given(st.permutations(range(8)), st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_whoever_is_made_is_given_in_order(recorded, made, absent) -> None:
    arrivals = Arrivals({CALLS[n]: place for place, n in enumerate(recorded)})
    came: list[int] = []

    async def one(n: int) -> None:
        arrivals.made(CALLS[n])
        await adrive(arrivals.in_turn(CALLS[n], 0.0))
        came.append(n)
        arrivals.over(CALLS[n])

    async def all_of_them() -> None:
        await asyncio.gather(*(one(n) for n in made if n not in absent))

    asyncio.run(all_of_them())
    assert came == [n for n in recorded if n not in absent]


def test_what_is_inside_of_an_answered_call_is_not_waited_for() -> None:
    outer, inner = CallId("0", "outer", 1), CallId("0/outer#1/2", "inner", 0)
    like, last = CallId("0/outer#10", "inner", 0), CallId("0", "last", 0)
    arrivals = Arrivals({inner: 1, outer: 2, like: 3, last: 4})
    arrivals.made(outer)
    arrivals.over(outer, inside=True)
    steps = arrivals.in_turn(last, 0.0)
    assert not next(steps).future.done()  # for `like`, which is in another call
    steps.close()
    arrivals.over(like)
    drive(arrivals.in_turn(last, 0.0))
