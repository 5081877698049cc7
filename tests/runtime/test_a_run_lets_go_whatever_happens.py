"""However a run ends, its lease and its claim are given back, and no turn stays open for ever."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import crabrt
from crabrt.core.failpoints import ALL
from crabrt.runtime import registry
from crabrt.runtime.session import Session


@crabrt.model
def think(messages: list[dict]) -> str:
    return "ok"


@crabrt.tool
def touch(path: str) -> None:
    Path(path).write_text("x")


@pytest.fixture(autouse=True)
def nothing_lives():
    yield
    left, registry._live = dict(registry._live), {}
    assert left == {}


def again(ws: Path) -> None:
    """Whether the workspace can be had."""
    with crabrt.open_run(workspace=ws, name="again"):
        pass


@pytest.mark.parametrize("what", ["crabrt.journal.Journal.close", "crabrt.store.StoreWriter.close"])
def test_a_disk_that_fails_at_the_end_takes_no_result_away(
    what: str, ws: Path, home: Path, monkeypatch
) -> None:
    hits: list[int] = []

    def fail(self, *args) -> None:
        hits.append(1)
        raise crabrt.StoreUnavailable("no space left")

    @crabrt.agent(workspace=ws, name="ender")
    def run() -> str:
        touch(str(ws / "a"))
        return "result"

    with monkeypatch.context() as patched:
        patched.setattr(what, fail)
        with pytest.warns(crabrt.UnprotectedWarning, match="space"):
            assert run() == "result"
    assert hits
    crabrt.resume("ender")
    again(ws)


def test_a_generator_agent_that_is_never_iterated_never_began(ws: Path, home: Path) -> None:
    @crabrt.agent(workspace=ws, name="lazy")
    def run():
        yield 1

    run()
    gc.collect()
    again(ws)


def cleaning_agent(ws: Path, name: str) -> Callable[[], Iterator[int]]:
    """An agent that is a generator, and has something to do when it is closed."""

    @crabrt.agent(workspace=ws, name=name)
    def run():
        try:
            yield 1
            yield 2
        finally:
            touch(str(ws / "cleanup"))

    return run


def test_a_generator_agent_dropped_halfway_runs_its_finally_inside_the_run(ws: Path, store) -> None:
    for _ in cleaning_agent(ws, "dropped")():
        break
    gc.collect()
    again(ws)
    assert [tool.name for turn in store.turns("dropped") for tool in turn.tools] == ["touch"]


def test_a_generator_agent_collected_by_the_engines_own_thread_ends_all_the_same(
    ws: Path, store
) -> None:
    """Garbage is collected wherever there is an allocation too many; its end waits for captures."""
    steps = [cleaning_agent(ws, "collected")()]
    next(steps[0])
    (session,) = registry._live.values()
    before = set(threading.enumerate())
    session.engine.run_aside(steps.clear).result(30)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    again(ws)
    assert [tool.name for turn in store.turns("collected") for tool in turn.tools] == ["touch"]
    assert store.run("collected").status == "failed"


async def test_an_async_generator_agent_closed_halfway_ends_its_loop_first(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="adropped")
    async def run():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            touch(str(ws / "cleanup"))

    steps = run()
    async for _ in steps:
        break
    await steps.aclose()
    await asyncio.to_thread(again, ws)
    assert [tool.name for turn in store.turns("adropped") for tool in turn.tools] == ["touch"]


def test_what_is_thrown_into_a_generator_agent_reaches_its_loop(ws: Path, home: Path) -> None:
    @crabrt.agent(workspace=ws, name="thrown")
    def run():
        try:
            yield 1
        except KeyError:
            got = yield "caught"
        return got

    steps = run()
    next(steps)
    assert steps.throw(KeyError("x")) == "caught"
    with pytest.raises(StopIteration) as stop:
        steps.send("value")
    assert stop.value.value == "value"


def test_a_generator_agent_may_be_stepped_by_any_thread(ws: Path, killed, die) -> None:
    """As web servers do; calls are known by their place all the same."""

    def agent(deadly: bool):
        @crabrt.agent(workspace=ws, name="stepped")
        def run():
            for i in range(3):
                touch(str(ws / f"{i}"))
                if deadly and i == 2:
                    die()
                yield i

        return run

    def in_threads(steps) -> list:
        seen: list = []
        while True:
            before = len(seen)
            thread = threading.Thread(target=lambda: seen.extend(itertools.islice(steps, 1)))
            thread.start()
            thread.join()
            if len(seen) == before:
                return seen

    killed(lambda: in_threads(agent(deadly=True)()))
    assert list(agent(deadly=False).resume("stepped")) == [0, 1, 2]


async def test_an_agent_cancelled_while_it_opens_leaves_nothing_behind(
    ws: Path, home: Path, monkeypatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    original = Session.checkpoint

    def slow(self, *args):
        inside.set()
        assert go_on.wait(30)
        return original(self, *args)

    @crabrt.agent(workspace=ws, name="cancelled")
    async def run() -> None:
        pytest.fail("it was cancelled before")

    monkeypatch.setattr(Session, "checkpoint", slow)
    task = asyncio.ensure_future(run())
    await asyncio.to_thread(inside.wait, 30)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert not registry._live


async def test_a_tool_cancelled_at_its_gate_does_not_keep_the_turn_open(
    ws: Path, store, monkeypatch
) -> None:
    """Also while its exception is still held by somebody."""
    go_on, held = threading.Event(), []
    arrived = threading.Event()

    def block() -> None:
        arrived.set()
        assert go_on.wait(30)

    @crabrt.tool
    async def act(n: int) -> None:
        (ws / "a").write_text(str(n))

    @crabrt.agent(workspace=ws, name="gatecancel")
    async def run() -> None:
        task = asyncio.ensure_future(act(1))
        await asyncio.to_thread(arrived.wait, 30)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            held.append(error)
        monkeypatch.setattr(ALL["checkpoint.scanned"], "action", None)
        go_on.set()
        for n in range(2, 4):
            think([{"role": "user", "content": str(n)}])
            await act(n)

    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", block)
    await run()
    assert held
    assert [turn.turn for turn in store.turns()] == [0, 1, 2, 3]


def test_an_interrupt_in_the_gate_reaches_the_caller_and_the_run_is_let_go(
    ws: Path, home: Path, monkeypatch
) -> None:
    go_on = threading.Event()

    @crabrt.agent(workspace=ws, name="interrupted")
    def run() -> None:
        touch(str(ws / "a"))

    def interrupt() -> None:
        monkeypatch.setattr(ALL["checkpoint.scanned"], "action", None)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=go_on.set).start()
        assert go_on.wait(30)

    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
    finally:
        signal.signal(signal.SIGINT, before)
    again(ws)


def test_a_forked_child_that_leaves_through_the_agent_does_not_hang(ws: Path, store) -> None:
    @crabrt.tool
    def forking() -> int:
        pid = os.fork()
        if pid == 0:
            raise SystemExit(7)
        return pid

    @crabrt.agent(workspace=ws, name="forked")
    def run() -> int:
        return forking()

    parent = os.getpid()
    pid = 0
    try:
        pid = run()
    finally:
        if os.getpid() != parent:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert store.run().status == "done"


class Chunks:
    """A client's stream object: iterator, context manager, with a header."""

    request_id = "r1"

    def __init__(self) -> None:
        self.left = ["a", "b"]
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self) -> str:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("how", ["dropped", "closed", "context"])
def test_a_tools_stream_that_nobody_reads_does_not_keep_its_turn_open(
    how: str, ws: Path, store
) -> None:
    made = Chunks()

    @crabrt.tool
    def lines() -> Chunks:
        return made

    @crabrt.agent(workspace=ws, name="unread")
    def run() -> None:
        think([])
        stream = lines()
        if how == "closed":
            stream.close()
        elif how == "context":
            with stream:
                pass
        del stream
        gc.collect()
        for i in range(2):
            think([])
            touch(str(ws / f"{i}"))

    run()
    assert made.closed or how == "dropped"
    assert [turn.turn for turn in store.turns()] == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:.*what opened gave cannot be stored")
def test_a_file_that_a_tool_opens_is_no_stream(ws: Path, store) -> None:
    (ws / "a").write_text("text")

    @crabrt.tool
    def opened():
        return (ws / "a").open()

    @crabrt.agent(workspace=ws, name="opener")
    def run() -> str:
        with opened() as file:
            return file.read()

    assert run() == "text"
    assert store.turns()[1].tools[0].ok


def test_a_stream_that_outlives_its_run_still_flows(ws: Path, home: Path) -> None:
    @crabrt.model
    def stream(messages: list[dict]):
        yield from "abc"

    @crabrt.agent(workspace=ws, name="outlived")
    def run():
        return iter([stream([])])

    (left,) = run()
    assert "".join(left) == "abc"


async def test_an_async_clients_stream_is_closed_as_its_client_does(ws: Path, store) -> None:
    class AsyncChunks:
        def __init__(self) -> None:
            self.closed = False

        def __aiter__(self):
            return self

        async def __anext__(self) -> str:
            return "x"

        async def close(self) -> None:
            self.closed = True

    made = AsyncChunks()

    @crabrt.model
    async def ask(messages: list[dict]) -> AsyncChunks:
        return made

    @crabrt.agent(workspace=ws, name="aclient")
    async def run() -> None:
        stream = await ask([{"role": "user", "content": "x"}])
        async for _ in stream:
            break
        await stream.close()

    await run()
    assert made.closed


async def test_a_run_may_be_entered_in_one_task_and_left_in_another(ws: Path, store) -> None:
    manager = crabrt.open_run(workspace=ws, name="split")
    run = await asyncio.ensure_future(manager.__aenter__())
    run.tool_call("sh", {}, lambda: (ws / "a").write_text("x"))
    await asyncio.ensure_future(manager.__aexit__(None, None, None))
    assert store.run().status == "done"


def test_a_run_that_is_over_says_so(ws: Path, home: Path) -> None:
    with crabrt.open_run(workspace=ws, name="over") as run:
        pass
    with pytest.raises(crabrt.UsageError, match="over"):
        run.tool_call("sh", {}, lambda: 1)
