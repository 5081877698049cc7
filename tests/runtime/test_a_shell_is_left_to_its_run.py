"""A shell that an exception closes: alive until it is known whether the run ends with that."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import crabrt
from crabrt.core.entries import Checkpoint
from crabrt.core.ids import ObjectId
from crabrt.process.shell import ShellUnavailable
from crabrt.process.state import read_state
from crabrt.process.table import children, command, look
from crabrt.store import Store


class Broken(Exception):
    pass


@crabrt.tool
def tool(act=lambda: None):
    return act()


@crabrt.tool
async def atool(act=lambda: None):
    return act()


@crabrt.tool
async def abash(sh, command):
    return (await sh.arun(command)).output


def lives(pid: int) -> bool:
    found = look(pid)
    return found is not None and not found.ended


class Shells:
    """Shells that are begun by name, and where their bash was."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.made: dict[str, crabrt.Shell] = {}

    def fail(self, name: str = "main", error: type[BaseException] = Broken) -> None:
        with crabrt.Shell(name) as sh:
            self.begin(name, sh)
            raise error

    def begin(self, name: str, sh: crabrt.Shell) -> None:
        tool(lambda: sh.run(f"name={name}"))
        assert sh.pid is not None
        self.pids[name], self.made[name] = sh.pid, sh

    async def abegin(self, name: str, sh: crabrt.Shell) -> None:
        await abash(sh, f"name={name}")
        assert sh.pid is not None
        self.pids[name], self.made[name] = sh.pid, sh

    @property
    def living(self) -> set[str]:
        return {name for name, pid in self.pids.items() if lives(pid)}


@pytest.fixture
def shells(ws, monkeypatch):
    monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")
    monkeypatch.chdir(ws)
    made = Shells()
    yield made
    assert made.living == set()  # no run leaves one


def kept(store, run: str = "last") -> list[list[str]]:
    """The shells in each checkpoint of a run."""
    found = []
    with Store.open(store.home) as reader:
        for body in store.bodies(Checkpoint, run):
            root = body.processes
            state = read_state(ObjectId(root), reader) if root else None
            found.append([] if state is None else [shell.name for shell in state.shells])
    return found


def test_a_run_that_ends_with_the_exception_has_it_in_its_last_checkpoint(shells, store):
    @crabrt.agent(workspace=".")
    def loop():
        try:
            shells.fail()
        finally:
            left.append(shells.living)

    left = []
    with pytest.raises(Broken):
        loop()
    assert left == [{"main"}]
    assert kept(store)[-1] == ["main"]
    with pytest.raises(ShellUnavailable, match="closed"):
        shells.made["main"].run("true")


def test_a_run_that_ends_well_has_closed_it_before_its_last_checkpoint(shells, store):
    @crabrt.agent(workspace=".")
    def loop():
        with crabrt.Shell() as sh:
            shells.begin("main", sh)
        assert shells.living == set()
        with pytest.raises(Broken):
            shells.fail("handled")

    loop()
    assert kept(store)[-1] == []


def test_a_loop_that_goes_on_does_so_without_it(shells, store):
    @crabrt.agent(workspace=".")
    def loop():
        with pytest.raises(Broken):
            shells.fail()
        assert shells.living == {"main"}
        assert tool(lambda: shells.living) == set()
        raise Broken

    with pytest.raises(Broken):
        loop()
    assert kept(store)[-1] == []


def test_the_next_model_call_comes_after_it(shells, store):
    @crabrt.model
    def think(number):
        return number, sorted(shells.living)

    @crabrt.agent(workspace=".")
    def loop():
        think(1)
        with pytest.raises(Broken):
            shells.fail()
        said = think(2)
        tool()
        return said

    assert loop()[1] == []
    assert [turn.verdict for turn in store.turns()[1:]][-1] == ("none",)
    assert kept(store)[-2:] == [[], []]


def test_so_do_the_next_shell_and_a_rollback(shells):
    @crabrt.agent(workspace=".")
    def loop():
        with pytest.raises(Broken):
            shells.fail("first")
        with crabrt.Shell("second") as sh:
            sh.run("true")
            assert shells.living == set()
        with pytest.raises(Broken):
            shells.fail("third")
        crabrt.current_run().rollback(to=0)
        assert shells.living == set()

    loop()


def test_a_call_beside_tells_nothing_of_it(shells):
    """What was under way all the time may go on whatever becomes of the exception."""

    @crabrt.agent(workspace=".")
    async def loop():
        failed, asked = asyncio.Event(), asyncio.Event()

        async def fails():
            async with crabrt.Shell() as sh:
                await shells.abegin("main", sh)
                raise Broken

        async def beside():
            await failed.wait()
            beside_it.append(await atool(lambda: shells.living))
            asked.set()

        tasks = [asyncio.create_task(fails()), asyncio.create_task(beside())]
        with pytest.raises(Broken):
            await tasks[0]
        failed.set()
        await asked.wait()
        later.append(await asyncio.create_task(atool(lambda: shells.living)))

    beside_it, later = [], []
    asyncio.run(loop())
    assert beside_it == [{"main"}]
    assert later == [set()]  # a task that began since


def test_parallel_workers_that_are_cancelled_leave_theirs(shells, store):
    @crabrt.agent(workspace=".")
    async def loop():
        async def worker(name):
            async with crabrt.Shell(name) as sh:
                await shells.abegin(name, sh)
                await begun.wait()
                await asyncio.sleep(100)

        begun = asyncio.Barrier(3)

        async def fails():
            await begun.wait()
            raise Broken

        async with asyncio.TaskGroup() as group:
            for name in ("one", "two"):
                group.create_task(worker(name))
            group.create_task(fails())

    with pytest.raises(ExceptionGroup):
        asyncio.run(loop())
    assert sorted(kept(store)[-1]) == ["one", "two"]


def test_a_cancelled_command_ends_and_its_shell_is_left(shells, store):
    @crabrt.agent(workspace=".")
    async def loop():
        async with crabrt.Shell() as sh:
            await shells.abegin("main", sh)
            await asyncio.wait_for(abash(sh, "sleep 100"), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(loop())
    assert kept(store)[-1] == ["main"]


@pytest.mark.parametrize("passes", [True, False], ids=["passes", "handled"])
def test_what_a_child_run_leaves_is_its_callers(shells, store, passes):
    @crabrt.agent
    def child():
        shells.fail()

    @crabrt.agent(workspace=".")
    def loop():
        try:
            child()
        except Broken:
            left.append(shells.living)
            if passes:
                raise

    left = []
    if passes:
        with pytest.raises(Broken):
            loop()
    else:
        loop()
    assert left == [{"main"}]
    assert kept(store, "loop")[-1] == (["main"] if passes else [])


def test_a_child_that_failed_beside_another_is_left_until_its_caller_goes_on(shells):
    @crabrt.agent
    async def child(failed):
        async with crabrt.Shell() as sh:
            await shells.abegin("main", sh)
            failed.set()
            raise Broken

    @crabrt.agent
    async def sibling(failed, over):
        await failed.wait()
        await over.wait()
        seen.append(await atool(lambda: shells.living))

    @crabrt.agent(workspace=".")
    async def loop():
        failed, over = asyncio.Event(), asyncio.Event()
        beside = asyncio.create_task(sibling(failed, over))
        task = asyncio.create_task(child(failed))
        with pytest.raises(Broken):
            await task
        over.set()
        await beside
        seen.append(await atool(lambda: shells.living))

    seen = []
    asyncio.run(loop())
    assert seen == [{"main"}, set()]


def test_what_a_tool_closes_is_closed(shells, store):
    @crabrt.tool
    def fails():
        with crabrt.Shell() as sh:
            sh.run("true")
            shells.pids["main"] = sh.pid
            raise Broken

    @crabrt.agent(workspace=".")
    def loop():
        try:
            fails()
        finally:
            left.append(shells.living)

    left = []
    with pytest.raises(Broken):
        loop()
    assert left == [set()]
    assert kept(store)[-1] == []


@pytest.mark.parametrize("how", ["outside", "disabled", "processes"])
def test_elsewhere_it_is_closed_at_once(shells, monkeypatch, how):
    def loop():
        try:
            with crabrt.Shell() as sh:
                sh.run("true")
                shells.pids["main"] = sh.pid
                raise Broken
        finally:
            left.append(shells.living)

    left = []
    if how == "disabled":
        monkeypatch.setenv("CRAB_DISABLE", "1")
    run = loop if how == "outside" else crabrt.agent(workspace=".", processes="off")(loop)
    with pytest.raises(Broken):
        run()
    assert left == [set()]


def test_a_generator_that_is_closed_leaves_it(shells, store):
    @crabrt.agent(workspace=".")
    def loop():
        with crabrt.Shell() as sh:
            shells.begin("main", sh)
            yield 1
            yield 2

    steps = loop()
    next(steps)
    steps.close()
    assert kept(store)[-1] == ["main"]


def test_an_async_generator_that_is_closed_leaves_it(shells, store):
    @crabrt.agent(workspace=".")
    async def loop():
        async with crabrt.Shell() as sh:
            await shells.abegin("main", sh)
            yield 1
            yield 2

    async def main():
        steps = loop()
        await anext(steps)
        await steps.aclose()

    asyncio.run(main())
    assert kept(store)[-1] == ["main"]


def test_a_command_of_another_thread_is_ended(shells, store):
    @crabrt.agent(workspace=".")
    def loop():
        with crabrt.Shell() as sh:
            shells.begin("main", sh)
            threading.Thread(target=lambda: results.append(sh.run("sleep 100"))).start()
            while not any(b"sleep" in command(one) for one in children(sh.pid)):
                time.sleep(0.005)
            raise Broken

    results = []
    with pytest.raises(Broken):
        loop()
    assert results[0].interrupted
    assert kept(store)[-1] == ["main"]


def test_shells_of_several_live_runs_are_each_its_own(shells, ws):
    """What runs and closes them on threads knows in which run it does."""

    async def loop(name, begun):
        async with crabrt.Shell(name) as sh:
            await shells.abegin(name, sh)
            await begun.wait()
            assert await abash(sh, "echo $name") == f"{name}\n"
            raise Broken

    async def main():
        begun, runs = asyncio.Barrier(2), []
        for name in ("one", "two"):
            (ws / name).mkdir()
            runs.append(crabrt.agent(workspace=ws / name, name=name)(loop)(name, begun))
        return await asyncio.gather(*runs, return_exceptions=True)

    assert [type(ended) for ended in asyncio.run(main())] == [Broken, Broken]
