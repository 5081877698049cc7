"""A loop that died of a call's failure: what failed may work now, so a resume makes it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path

import pytest

import crabrt
from crabrt.core.targets import parse_target
from crabrt.journal import RunIndex
from crabrt.operations.forking import fork_to
from crabrt.operations.targets import resolve
from crabrt.store import Store


class Outage:
    """What fails, until it is mended; and every call that was really made."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.made: list[str] = []

    def call(self, name: str, error: type[Exception] = ConnectionError) -> str:
        self.made.append(name)
        if name in self.broken:
            raise error(f"{name} is down")
        return name

    def model(self):
        @crabrt.model
        def think(messages: list[dict]) -> str:
            return self.call(f"think {len(messages)}")

        return think

    def tool(self, **declared):
        @crabrt.tool(**declared)
        def act(n: int) -> str:
            return self.call(f"act {n}")

        return act


def simple(ws: Path, outage: Outage, **declared):
    think, act = outage.model(), outage.tool(**declared)

    @crabrt.agent(workspace=ws, name="simple")
    def run() -> list[str]:
        return [call for n in range(3) for call in (think([{"role": "user"}] * n), act(n))]

    return run


@pytest.mark.parametrize("broken", ["think 1", "act 1", "think 0"])
def test_the_call_that_failed_is_made_again(ws: Path, home: Path, broken) -> None:
    outage = Outage(broken)
    run = simple(ws, outage)
    for start in (run, lambda: run.resume("last")):  # and fails again
        with pytest.raises(ConnectionError):
            start()
    outage.broken.clear()
    whole = ["think 0", "act 0", "think 1", "act 1", "think 2", "act 2"]
    for _ in range(2):
        assert run.resume("last") == whole
    assert outage.made == sorted([*whole, broken, broken], key=whole.index)


def test_what_failed_outside_is_in_doubt(ws: Path, home: Path) -> None:
    """It may have acted before it raised: who declared it says what then."""
    outage = Outage("act 1")
    run = simple(ws, outage, effect="external")
    with pytest.raises(ConnectionError):
        run()
    with pytest.raises(crabrt.InDoubt):
        run.resume("last")
    assert outage.made.count("act 1") == 1
    outage.broken.clear()
    assert simple(ws, outage, effect="external", in_doubt="retry").resume("last")[-1] == "act 2"
    assert outage.made.count("act 1") == 2
    assert outage.made.count("act 0") == 1


@pytest.mark.parametrize("wrapping", ["cause", "context", "group", "from none"])
def test_also_where_the_loop_raised_what_it_made_of_it(ws: Path, home: Path, wrapping) -> None:
    outage = Outage("think 1")
    think, act = outage.model(), outage.tool()

    @crabrt.agent(workspace=ws, name="wrapping")
    def run() -> None:
        for n in range(2):
            try:
                think([{"role": "user"}] * n)
            except ConnectionError as error:
                if wrapping == "group":
                    raise ExceptionGroup("all", [ValueError(), error]) from None
                if wrapping == "cause":
                    raise RuntimeError("no model") from error
                if wrapping == "context":
                    raise RuntimeError("no model")  # noqa: B904  as many loops do
                raise RuntimeError("no model") from None
            act(n)

    with pytest.raises((RuntimeError, ExceptionGroup)):
        run()
    outage.broken.clear()
    run.resume("last")
    assert outage.made == ["think 0", "act 0", "think 1", "think 1", "act 1"]


def test_a_failure_that_the_loop_went_on_from_stays_one(ws: Path, home: Path) -> None:
    """It told the model, and the run ended for another reason; both are on one chain."""
    outage = Outage("act 0", "think 2")
    think, act = outage.model(), outage.tool()

    @crabrt.agent(workspace=ws, name="handling")
    def run() -> str:
        think([{"role": "user"}])
        try:
            act(0)
        except ConnectionError:
            think([])
            return think([{"role": "user"}] * 2)  # while the first one is handled
        return "it never failed"

    with pytest.raises(ConnectionError):
        run()
    outage.broken.clear()
    assert run.resume("last") == "think 2"
    assert outage.made == ["think 1", "act 0", "think 0", "think 2", "think 2"]


def test_a_loop_that_cleans_up_first_goes_on_too(ws: Path, home: Path) -> None:
    outage = Outage("think 1")
    think, act = outage.model(), outage.tool()

    @crabrt.agent(workspace=ws, name="cleaning")
    def run() -> str:
        think([])
        try:
            think([{"role": "user"}])
        except ConnectionError:
            act(9)
            raise
        return act(1)

    with pytest.raises(ConnectionError):
        run()
    outage.broken.clear()
    assert run.resume("last") == "act 1"
    assert outage.made == ["think 0", "think 1", "act 9", "think 1", "act 1"]


@pytest.mark.parametrize("forked", [False, True])
def test_parallel_calls_that_were_cancelled_with_it_are_made_too(
    ws: Path, home: Path, forked
) -> None:
    outage, ended = Outage("act 1"), []

    @crabrt.tool
    async def act(n: int) -> int:
        outage.made.append(f"begins {n}")
        await asyncio.sleep(0.05)
        outage.call(f"act {n}")
        await asyncio.sleep(0.05)
        ended.append(n)
        return n

    @crabrt.agent(workspace=ws, name="parallel")
    async def run() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(act(n)) for n in range(3)]
        return [task.result() for task in tasks]

    with pytest.raises(ExceptionGroup):
        asyncio.run(run())
    assert ended == []
    outage.broken.clear()
    target = "last"
    if forked:
        with Store.open(home) as opened, RunIndex.open(home) as index:
            index.refresh()
            target = fork_to(opened, resolve(index, parse_target("last")), ws.parent / "fork").run
    assert asyncio.run(run.resume(target)) == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


def test_a_tool_that_failed_within_another_and_in_a_child_run(ws: Path, home: Path) -> None:
    outage = Outage("act 1")
    think, act = outage.model(), outage.tool()

    @crabrt.tool
    def outer(n: int) -> str:
        outage.made.append(f"outer {n}")
        return act(n)

    @crabrt.agent(workspace=ws, name="child")
    def child(n: int) -> str:
        think([{"role": "user"}] * n)
        return outer(n)

    @crabrt.agent(workspace=ws, name="boss")
    def boss() -> list[str]:
        return [child(n) for n in range(2)]

    with pytest.raises(ConnectionError):
        boss()
    outage.broken.clear()
    assert boss.resume("last") == ["act 0", "act 1"]
    first = ["think 0", "outer 0", "act 0", "think 1", "outer 1", "act 1"]
    assert outage.made == [*first, "outer 1", "act 1"]


def test_a_stream_that_broke_and_took_the_loop_along(ws: Path, home: Path) -> None:
    outage = Outage("think 2")

    @crabrt.model
    def stream(messages: list[dict]):
        yield "first"
        yield outage.call(f"think {len(messages)}")

    @crabrt.agent(workspace=ws, name="streaming")
    def run() -> list[str]:
        return list(stream([{"role": "user"}] * 2))

    with pytest.raises(ConnectionError):
        run()
    outage.broken.clear()
    assert run.resume("last") == ["first", "think 2"]


def test_an_opened_run_goes_on_too(ws: Path, home: Path) -> None:
    outage = Outage("act 0")
    act = outage.tool()

    def body(**how) -> str:
        with crabrt.open_run(workspace=ws, name="opened", **how):
            return act(0)

    with pytest.raises(ConnectionError):
        body()
    outage.broken.clear()
    assert body(resume="last") == "act 0"
    assert outage.made == ["act 0", "act 0"]


# -- what the turn that it ended in holds then --------------------------------------------------


def writing(ws: Path, outage: Outage):
    think = outage.model()

    @crabrt.tool
    def write(n: int) -> str:
        (ws / f"begun{n}").touch()
        outage.call(f"write {n}")
        (ws / f"whole{n}").touch()
        return "written"

    @crabrt.agent(workspace=ws, name="writing")
    def run() -> str:
        for n in range(1, 4):
            think([{"role": "user"}] * n)
            write(n)
        return "done"

    return run


@pytest.mark.parametrize("broken", ["think 2", "write 2", "think 3", "write 3"])
def test_the_turn_that_it_ended_in_has_what_was_done_after_the_resume(
    ws: Path, home: Path, store, broken
) -> None:
    """Its state, its verdict, and what a fork of it holds."""
    outage = Outage(broken)
    run = writing(ws, outage)
    with pytest.raises(ConnectionError):
        run()
    outage.broken.clear()
    assert run.resume("last") == "done"
    for n, turn in enumerate(store.turns()[1:], 1):
        assert (turn.turn, turn.files_added, turn.files) == (n, 2, 2)
    with Store.open(home) as opened, RunIndex.open(home) as index:
        index.refresh()
        for n in (1, 2, 3):
            state = resolve(index, parse_target(f"last@{n}"))
            fork_to(opened, state, ws.parent / f"fork{n}")
            names = sorted(path.name for path in (ws.parent / f"fork{n}").iterdir())
            assert names == sorted(
                f"{what}{k}" for what in ("begun", "whole") for k in range(1, n + 1)
            )
    made = list(outage.made)
    assert run.resume("last@2") == "done"  # from its end: nothing of it is made again
    assert outage.made == [*made, "think 3", "write 3"]


def test_a_kill_in_the_turn_after_does_not_undo_it(ws: Path, home: Path, killed, die) -> None:
    outage = Outage("think 2")
    run = writing(ws, outage)
    with pytest.raises(ConnectionError):
        run()

    def body() -> None:
        outage.broken.clear()
        (ws.parent / "resumed").touch()
        outage.call = lambda name: die() if name == "write 3" else name
        run.resume("last")

    killed(body)
    outage.broken.clear()
    outage.made.clear()
    assert run.resume("last") == "done"
    assert outage.made == ["write 3"]


# -- what a loop catches, and meets again ---------------------------------------------------------


class Refused(Exception):
    """As clients of an API make them: with their request and its connection."""

    def __init__(self, message: str, *, request: object, code: int) -> None:
        super().__init__(message)
        self.request, self.code = request, code


class RateLimited(Refused):
    pass


def catching(ws: Path, error, expected: type[Exception], **declared):
    died: list[int] = []

    @crabrt.model(**declared)
    def think(messages: list[dict]) -> str:
        if not messages:
            raise error()
        return "ok"

    @crabrt.tool
    def act() -> None:
        if not died:
            died.append(1)
            raise ConnectionError

    @crabrt.agent(workspace=ws, name="catching")
    def run() -> object:
        try:
            think([])
        except expected as caught:
            found = (str(caught), getattr(caught, "code", None))
            think([{"role": "user"}])
            act()
            return found
        return None

    return run


def test_what_is_named_stands_for_what_is_derived_from_it(ws: Path, home: Path) -> None:
    """And what cannot be stored of it is no reason to give something else."""
    run = catching(
        ws, lambda: RateLimited("slowly", request=object(), code=429), Refused, raises=Refused
    )
    with pytest.raises(ConnectionError):
        run()
    assert run.resume("last") == ("slowly", 429)


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(2, ["make"], b"out", b"err"),
        subprocess.TimeoutExpired("make", 3),
        json.JSONDecodeError("no value", "{", 1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_tools_end_with_comes_back_unnamed(ws: Path, home: Path, error) -> None:
    run = catching(ws, lambda: error, type(error))
    with pytest.raises(ConnectionError):
        run()
    assert run.resume("last") == (str(error), None)


def test_an_exception_that_nobody_named_says_what_to_name(ws: Path, home: Path) -> None:
    made = [lambda: Refused("no", request=None, code=1), Refused]
    with pytest.raises(ConnectionError):
        catching(ws, *made)()
    with pytest.raises(crabrt.ReplayedError) as found:
        catching(ws, *made).resume("last")
    assert str(found.value) == "no"
    assert "name that class" in found.value.__notes__[0]
    made[0] = pytest.fail  # it was handled then: it is not made again, though it ended a resume
    with pytest.raises(ConnectionError):
        catching(ws, *made, raises=Refused).resume("last")


def test_a_call_with_other_arguments_says_that_it_is_another_run(
    ws: Path, home: Path, monkeypatch
) -> None:
    outage = Outage("act 1")
    act = outage.tool()

    @crabrt.agent(workspace=ws, name="asked")
    def run(prompt: str) -> str:
        return act(1)

    with pytest.raises(ConnectionError):
        run("tidy up")
    outage.broken.clear()
    monkeypatch.setenv("CRAB_RESUME", "last")
    with pytest.warns(crabrt.RestoreWarning, match="has other arguments than asked-"):
        run("tidy up today")
    assert outage.made == ["act 1", "act 1"]


# -- what the loop knew of it stays ---------------------------------------------------------------


def test_parallel_calls_beside_the_one_that_is_made_again_are_not(
    ws: Path, home: Path, killed, die
) -> None:
    """Nor after a kill behind that: what it superseded was not theirs."""

    def agent(*, broken: bool, deadly: bool):
        @crabrt.tool
        async def act(n: int) -> str:
            await asyncio.sleep(0.3 if n == 1 else 0.05)
            if broken and n == 1:
                raise ConnectionError
            with (ws / "file").open("a") as file:
                file.write(str(n))
            return str(n)

        @crabrt.model
        async def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.tool
        def last() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="parallel")
        async def run() -> list[str]:
            given = await asyncio.gather(*(act(n) for n in range(3)))
            for count in range(2):
                await think([{"role": "user"}] * count)
                last()
            return given

        return run

    with pytest.raises(ConnectionError):
        asyncio.run(agent(broken=True, deadly=False)())
    killed(lambda: asyncio.run(agent(broken=False, deadly=True).resume("last")))
    assert asyncio.run(agent(broken=False, deadly=False).resume("last")) == ["0", "1", "2"]
    assert sorted((ws / "file").read_text()) == ["0", "1", "2"]


def test_a_handled_failure_outside_is_not_in_doubt_because_the_next_call_is(
    ws: Path, home: Path, killed, die
) -> None:
    made = ws.parent / "made"

    def agent(*, deadly: bool, **declared):
        @crabrt.tool(effect="external", **declared)
        def charge() -> None:
            with made.open("a") as file:
                file.write("A")
            raise ConnectionError("declined")

        @crabrt.tool(effect="external", **declared)
        def invoice() -> str:
            with made.open("a") as file:
                file.write("B")
            return die() if deadly else "sent"

        @crabrt.agent(workspace=ws, name="billing")
        def run() -> str:
            try:
                charge()
            except ConnectionError:
                return invoice()
            return "charged"

        return run

    killed(lambda: agent(deadly=True)())
    with pytest.raises(crabrt.InDoubt):
        agent(deadly=False).resume("last")
    assert agent(deadly=False, in_doubt="retry").resume("last") == "sent"
    assert made.read_text() == "ABB"


def test_what_its_check_says_of_a_failure_is_what_the_loop_gets(ws: Path, home: Path) -> None:
    outage = Outage("act 1")
    with pytest.raises(ConnectionError):
        simple(ws, outage, effect="external")()
    checked = {"effect": "external", "check": lambda n: crabrt.Done("it was made")}
    for _ in range(2):
        assert simple(ws, outage, **checked).resume("last")[3] == "it was made"
    assert outage.made.count("act 1") == 1


@pytest.mark.parametrize("opened", [False, True])
def test_a_child_run_whose_caller_went_on_from_its_end_is_not_made_otherwise(
    ws: Path, home: Path, killed, die, opened
) -> None:
    """It failed at an external call, which is no doubt of the caller's."""

    def agent(*, deadly: bool):
        @crabrt.tool(effect="external")
        def charge() -> None:
            raise ConnectionError("declined")

        @crabrt.tool
        def last() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="child")
        def child() -> None:
            charge()

        @crabrt.agent(workspace=ws, name="boss")
        def boss() -> str:
            try:
                if opened:
                    with crabrt.open_run(workspace=ws, name="kid"):
                        charge()
                else:
                    child()
            except ConnectionError:
                last()
                return "caught"
            return "charged"

        return boss

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "caught"


def test_a_time_limit_round_a_block_is_reached_again(ws: Path, home: Path) -> None:
    outage = Outage("act 0")
    act = outage.tool()

    @crabrt.agent(workspace=ws, name="limited")
    async def run() -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2), crabrt.current_run().tool_call("slow", {}) as call:
                return call.value if call.sealed else call.result(await asyncio.sleep(30))
        return act(0)

    with pytest.raises(ConnectionError):
        asyncio.run(run())
    outage.broken.clear()
    assert asyncio.run(run.resume("last")) == "act 0"
