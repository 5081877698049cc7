"""Whatever opens a run inside a run of the same directory makes a child run."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Intent, Result


class Nested:
    """An agent that opens a run for a block, and uses tools around it."""

    def __init__(self, ws: Path, die) -> None:
        self.ws, self.die, self.die_at = ws, die, ""
        self.log = ws.parent / "log"
        self.more = False

    def did(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} ")
        if what == self.die_at:
            self.die()

    @property
    def done(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def agent(self):
        @crabrt.tool
        def write(name: str) -> str:
            with (self.ws / name).open("a") as file:
                file.write("x")
            self.did(name)
            return name

        @crabrt.model
        def think(what: str) -> str:
            self.did(what)
            return what

        @crabrt.agent(workspace=self.ws, name="outer")
        def run() -> str:
            think("ask-0")
            write("before")
            with crabrt.open_run(workspace=self.ws, name="inner") as inner:
                for n in range(2):
                    think(f"ask-in-{n}")
                    write(f"in-{n}")
                if self.more:
                    write("more")
            think("ask-1")
            write("after")
            return inner.id

        return run


@pytest.fixture
def nested(ws: Path, die) -> Nested:
    return Nested(ws, die)


def test_a_block_inside_an_agent_is_a_child_run_and_one_call_to_its_parent(
    nested: Nested, store
) -> None:
    inner = nested.agent()()
    runs = {run.name: run for run in store.runs()}
    assert (runs["inner"].run, runs["inner"].parent) == (inner, runs["outer"].run)
    assert {run.status for run in runs.values()} == {"done"}
    assert [i.call.name for i in store.bodies(Intent, "outer")] == ["write", "inner", "write"]
    assert [i.call.name for i in store.bodies(Intent, inner)] == ["write", "write"]
    assert len(store.bodies(Result, "outer")) == 3


STEPS = ["ask-0", "before", "ask-in-0", "in-0", "ask-in-1", "in-1", "ask-1", "after"]


@pytest.mark.parametrize("moment", STEPS[1:])
def test_killed_anywhere_it_ends_as_if_it_had_not_been(
    moment: str, nested: Nested, killed, store
) -> None:
    nested.die_at = moment
    killed(nested.agent())
    nested.die_at = ""
    nested.agent().resume("outer")
    assert {path.name: path.read_text() for path in nested.ws.iterdir()} == dict.fromkeys(
        ("before", "in-0", "in-1", "after"), "x"
    )
    assert {run.status for run in store.runs()} == {"done"}
    assert len(store.runs()) == 2


def test_a_block_that_had_ended_may_not_go_another_way(nested: Nested, killed) -> None:
    nested.die_at = "after"
    killed(nested.agent())
    nested.die_at, nested.more = "", True
    with pytest.raises(crabrt.Diverged, match="had ended here"):
        nested.agent().resume("outer")


async def test_async_blocks_nest_too(ws: Path, store) -> None:
    async with (
        crabrt.open_run(workspace=ws, name="outer") as outer,
        crabrt.open_run(workspace=ws, name="inner") as inner,
    ):
        assert inner.id != outer.id
    runs = {run.name: run for run in store.runs()}
    assert runs["inner"].parent == runs["outer"].run
    assert {run.status for run in runs.values()} == {"done"}


def test_a_block_that_raises_is_a_failed_call_of_its_parent(ws: Path, store) -> None:
    def inner() -> None:
        with crabrt.open_run(workspace=ws, name="inner"):
            raise KeyError("x")

    with crabrt.open_run(workspace=ws, name="outer"), contextlib.suppress(KeyError):
        inner()
    (result,) = store.bodies(Result, "outer")
    assert result.failure.tag == "KeyError"
    assert store.run("inner").status == "failed"


def test_a_block_for_another_directory_is_a_run_of_its_own(ws: Path, tmp_path: Path, store) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with crabrt.open_run(workspace=ws, name="outer"), crabrt.open_run(workspace=other, name="two"):
        pass
    assert store.run("two").parent is None


class Reporting(Nested):
    """An agent that steps a generator agent, and uses a tool between its steps."""

    def agent(self):
        @crabrt.tool
        def write(name: str) -> str:
            with (self.ws / name).open("a") as file:
                file.write("x")
            self.did(name)
            return name

        @crabrt.model
        def think(what: str) -> str:
            self.did(what)
            return what

        @crabrt.agent(workspace=self.ws, name="inner")
        def steps():
            for n in range(2):
                think(f"ask-in-{n}")
                yield write(f"in-{n}")
            return "all"

        @crabrt.agent(workspace=self.ws, name="outer")
        def run() -> list[str]:
            think("ask-0")
            seen = []
            inner = steps()
            while True:
                try:
                    item = next(inner)
                except StopIteration as stop:
                    seen.append(stop.value)
                    break
                seen.append(item)
                think(f"look-{item}")
                seen.append(write(f"out-{item}"))
            think("ask-1")
            seen.append(write("after"))
            return seen

        return run


SEEN = ["in-0", "out-in-0", "in-1", "out-in-1", "all", "after"]
GENERATED = [
    "ask-0", "ask-in-0", "in-0", "look-in-0", "out-in-0", "ask-in-1", "in-1", "look-in-1",
    "out-in-1", "ask-1", "after",
]  # fmt: skip


def test_a_generator_agent_inside_an_agent_is_a_child_run(ws: Path, die, store) -> None:
    assert Reporting(ws, die).agent()() == SEEN
    runs = {run.name: run for run in store.runs()}
    assert runs["inner"].parent == runs["outer"].run
    assert {run.status for run in runs.values()} == {"done"}
    assert [i.call.name for i in store.bodies(Intent, "inner")] == ["write", "write"]
    assert [i.call.name for i in store.bodies(Intent, "outer")] == ["inner"] + ["write"] * 3
    # While the child waits for its caller, the caller's own turns end and are captured.
    assert [turn.verdict_names for turn in store.turns("outer")].count(["files"]) >= 3


@pytest.mark.parametrize("moment", GENERATED[1:])
def test_killed_anywhere_between_its_steps_it_ends_as_if_it_had_not_been(
    moment: str, ws: Path, killed, die, store
) -> None:
    world = Reporting(ws, die)
    world.die_at = moment
    killed(world.agent())
    world.die_at = ""
    assert world.agent().resume("outer") == SEEN
    assert {path.name: path.read_text() for path in ws.iterdir()} == dict.fromkeys(
        ("in-0", "in-1", "out-in-0", "out-in-1", "after"), "x"
    )
    assert {run.status for run in store.runs()} == {"done"}
    assert len(store.runs()) == 2


def test_a_generator_agent_that_is_dropped_halfway_is_answered_as_far_as_it_went(
    ws: Path, killed, die, store
) -> None:
    @crabrt.agent(workspace=ws, name="inner")
    def steps():
        yield from range(5)

    deadly = [True]

    @crabrt.tool
    def act() -> None:
        if deadly:
            die()

    @crabrt.agent(workspace=ws, name="outer")
    def run() -> list[int]:
        inner = steps()
        seen = [next(inner), next(inner)]
        inner.close()
        act()
        return seen

    killed(run)
    deadly.clear()
    assert run.resume("outer") == [0, 1]


async def test_async_generator_agents_nest_too(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="inner")
    async def steps():
        got = yield 1
        try:
            yield got
        except KeyError:
            yield 3

    @crabrt.agent(workspace=ws, name="outer")
    async def run() -> list[object]:
        inner = steps()
        seen = [await anext(inner), await inner.asend("two"), await inner.athrow(KeyError("x"))]
        seen += [item async for item in inner]
        return seen

    assert await run() == [1, "two", 3]
    runs = {run.name: run for run in store.runs()}
    assert runs["inner"].parent == runs["outer"].run
    assert {run.status for run in runs.values()} == {"done"}


async def test_agents_side_by_side_say_that_a_change_may_be_the_others(ws: Path, store) -> None:
    both = asyncio.Barrier(2)

    @crabrt.tool
    async def write(name: str) -> None:
        (ws / name).write_text(name)
        await both.wait()

    @crabrt.agent(workspace=ws, name="sub")
    async def sub(name: str) -> None:
        await write(name)

    @crabrt.agent(workspace=ws, name="top")
    async def top() -> None:
        await asyncio.gather(sub("a"), sub("b"))
        await sub_alone("c")

    @crabrt.tool
    async def quiet(name: str) -> None:
        (ws / name).write_text(name)

    @crabrt.agent(workspace=ws, name="alone")
    async def sub_alone(name: str) -> None:
        await quiet(name)

    await top()
    runs = {row.view.name: row.run for row in store.runs()}
    subs = sorted(row.run for row in store.runs() if row.view.name == "sub")
    said = [turn.evidence for run in subs for turn in store.turns(run) if turn.turn == 1]
    assert [line for lines in said for line in lines if "doing" in line] == [
        f"files: some may be the doing of {other}" for other in reversed(subs)
    ]
    for name in ("alone", "top"):
        evidence = [line for turn in store.turns(runs[name]) for line in turn.evidence]
        assert evidence
        assert not [line for line in evidence if "doing" in line]


async def _beside(ws: Path, die_at: str | None, die, log: Path) -> str:
    """A child run ends while another tool of its caller runs on: no point is made behind it."""
    ended = asyncio.Event()

    def did(name: str) -> None:
        with log.open("a") as file:
            file.write(f"{name} ")
        if name == die_at:
            die()

    @crabrt.tool
    async def slow() -> None:
        await ended.wait()

    @crabrt.tool
    async def write(name: str) -> None:
        (ws / name).write_text(name)
        did(name)

    @crabrt.agent(workspace=ws)
    async def helper() -> str:
        for n in range(3):
            await write(f"c{n}")
        return "helped"

    @crabrt.agent(workspace=ws)
    async def boss() -> str:
        async def other() -> str:
            said = await helper()
            await write("first")
            await write("second")
            ended.set()
            return said

        return (await asyncio.gather(slow(), other()))[1]

    return await (boss.resume("last") if die_at is None else boss())


@pytest.mark.parametrize("moment", ["c2", "first", "second"])
def test_killed_behind_a_child_run_beside_a_tool_nothing_of_it_is_lost(
    moment: str, ws: Path, killed, die, store
) -> None:
    log = ws.parent / "log"
    killed(lambda: asyncio.run(_beside(ws, moment, die, log)))
    assert asyncio.run(_beside(ws, None, die, log)) == "helped"
    names = ["c0", "c1", "c2", "first", "second"]
    assert sorted(path.name for path in ws.iterdir()) == names
    assert {run.status for run in store.runs()} == {"done"}


def caller_and_helper(ws: Path, helper_options: dict):
    @crabrt.tool
    def write(name: str) -> None:
        (ws / name).write_text("x")

    @crabrt.agent(name="helper", **helper_options)
    def helper() -> None:
        write("by-helper")

    @crabrt.agent(workspace=ws, name="caller")
    def caller() -> None:
        write("by-caller")
        helper()

    return caller


def test_an_agent_without_a_workspace_works_quietly_in_its_callers(
    ws: Path, store, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ws.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    caller_and_helper(ws, {})()  # a warning would be an error
    runs = {run.name: run for run in store.runs()}
    assert runs["helper"].parent == runs["caller"].run
    assert runs["helper"].workspace == bytes(ws)
    assert not [reason for turn in store.turns("caller") for reason in turn.unprotected]


def test_an_agent_that_names_another_directory_is_told_that_it_is_not_protected_there(
    ws: Path, store
) -> None:
    elsewhere = ws.parent / "elsewhere"
    elsewhere.mkdir()
    with pytest.warns(crabrt.UnprotectedWarning, match="elsewhere, the workspace of helper"):
        caller_and_helper(ws, {"workspace": elsewhere})()
    assert {run.name for run in store.runs()} == {"caller", "helper"}


def test_an_agent_without_a_workspace_protects_the_current_directory_outside_of_runs(
    ws: Path, store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ws)

    @crabrt.agent
    def alone() -> str:
        return crabrt.current_run().id

    assert store.run(alone()).workspace == bytes(ws)
