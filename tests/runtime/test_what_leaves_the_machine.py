"""Output commit: what is durable before a call leaves the machine, and what a resume makes."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Checkpoint, Gated, Intent, Noted, Result, Superseded
from crabrt.inspector.network import AutoNetwork, Spans
from crabrt.runtime.outgoing import TOPIC
from crabrt.runtime.reaching import Reaching
from crabrt.runtime.turns import TurnMachine

BLIND = {"network_observer": "off"}


@crabrt.model
def think(messages: list[dict]) -> str:
    return "ok"


def ask(text: object) -> str:
    return think([{"role": "user", "content": str(text)}])


class Outside:
    """The world: whatever is sent to it stays there."""

    def __init__(self, ws: Path) -> None:
        self.path = ws.parent / "outside"

    def send(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{text}\n")

    @property
    def got(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


@pytest.fixture
def outside(ws: Path) -> Outside:
    return Outside(ws)


class Waits:
    """How often a call was about to wait until no tool runs; and that one is, by an event."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.one_waits = 0, asyncio.Event()
        quiet = TurnMachine.quiet

        def waiting(machine: TurnMachine):
            self.count += 1
            self.one_waits.set()
            return quiet(machine)

        monkeypatch.setattr(TurnMachine, "quiet", waiting)


@pytest.fixture
def waits(monkeypatch) -> Waits:
    return Waits(monkeypatch)


def place(store, kind: type, name: str) -> int:
    """Where in the journal the entry about that call is."""
    found = [
        record.entry.seq
        for record in store.records()
        if isinstance(record.body, kind) and record.body.call.callable == name
    ]
    assert len(found) == 1, (kind, name, found)
    return found[0]


# -- what a resume answers -----------------------------------------------------------------------


def test_a_push_that_returned_while_others_ran_is_not_made_again(
    ws: Path, outside: Outside, killed, die, store
) -> None:
    def agent(deadly: bool):
        pushed = asyncio.Event()

        @crabrt.tool
        async def long_tests() -> str:
            await pushed.wait()
            if deadly:
                die()
            return "passed"

        @crabrt.tool
        async def sh(command: str) -> str:
            outside.send(command)
            (ws / "refs").write_text("pushed")
            return "Everything up-to-date"

        async def push() -> str:
            told = await sh("git push")
            pushed.set()
            return told

        @crabrt.agent(workspace=ws, name="pusher", **BLIND)
        async def run() -> list[str]:
            ask("start")
            return await asyncio.gather(long_tests(), push())

        return run

    killed(lambda: asyncio.run(agent(deadly=True)()))
    result = asyncio.run(agent(deadly=False).resume("last"))
    assert result == ["passed", "Everything up-to-date"]
    assert outside.got == ["git push"]
    assert not (ws / "refs").exists()  # it came back without that, and says so:
    assert [note.text.split()[0] for note in store.bodies(Noted) if note.topic == "answered"] == [
        "sh"
    ]


def test_nor_is_it_when_a_call_beside_it_now_says_otherwise(
    ws: Path, outside: Outside, killed, die, store
) -> None:
    """What was recorded behind the other call is void; what left the machine did leave it."""
    world = ws.parent / "world"
    world.write_text("before")

    def agent(deadly: bool):
        pushed, over = asyncio.Event(), asyncio.Event()

        @crabrt.tool
        async def slow() -> None:
            await over.wait()

        @crabrt.tool
        async def look() -> str:
            await pushed.wait()
            return world.read_text()

        @crabrt.tool
        async def sh(command: str) -> str:
            outside.send(command)
            return "pushed"

        async def looking() -> str:
            seen = await look()
            if deadly:
                die()
            over.set()
            return seen

        async def push() -> None:
            await sh("git push")
            pushed.set()

        @crabrt.agent(workspace=ws, name="again", **BLIND)
        async def run() -> str:
            ask("start")
            return (await asyncio.gather(slow(), looking(), push()))[1]

        return run

    killed(lambda: asyncio.run(agent(deadly=True)()))
    world.write_text("after")
    killed(lambda: asyncio.run(agent(deadly=True).resume("last")))
    assert len(store.bodies(Superseded)) == 1
    assert asyncio.run(agent(deadly=False).resume("last")) == "after"
    assert outside.got == ["git push"]


def test_a_push_that_was_cut_off_is_made_again(ws: Path, outside: Outside, killed, die) -> None:
    """Nobody declared it: it is in no doubt."""

    def agent(deadly: bool):
        @crabrt.tool
        def sh(command: str) -> None:
            outside.send(command)
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="cut", **BLIND)
        def run() -> None:
            ask("start")
            sh("git push")

        return run

    killed(lambda: agent(deadly=True)())
    agent(deadly=False).resume("last")
    assert outside.got == ["git push", "git push"]


def test_a_fork_may_push_what_its_parent_pushed(ws: Path, outside: Outside) -> None:
    """A guess keeps a run from repeating itself. For its forks, too, somebody has to declare it."""

    @crabrt.tool
    def sh(command: str) -> None:
        outside.send(command)

    @crabrt.agent(workspace=ws, name="forked", **BLIND)
    def run() -> None:
        for command in ("true", "git push"):
            ask(command)
            sh(command)

    run()
    run.resume("forked@1")
    assert outside.got == ["true", "git push", "git push"]


# -- points inside the turn ----------------------------------------------------------------------


async def test_a_point_follows_what_left_the_machine_once_no_tool_runs(ws: Path, store) -> None:
    pushed = asyncio.Event()

    @crabrt.tool
    async def slow() -> None:
        await pushed.wait()
        (ws / "slow").write_text("done")

    @crabrt.tool
    async def sh(command: str) -> str:
        return command

    async def push() -> None:
        await sh("git push")
        pushed.set()

    @crabrt.agent(workspace=ws, name="owed", **BLIND)
    async def run() -> None:
        ask("start")
        await asyncio.gather(slow(), push())

    await run()
    (point,) = [body for body in store.bodies(Checkpoint) if body.inner]
    assert point.position >= place(store, Result, "slow") > place(store, Result, "sh")


async def test_a_declared_call_waits_for_tools_beside_it_and_finds_their_work_durable(
    ws: Path, outside: Outside, store, waits
) -> None:
    @crabrt.tool
    async def beside() -> None:
        await waits.one_waits.wait()
        (ws / "beside").write_text("done")

    @crabrt.tool
    async def first() -> None:
        (ws / "first").write_text("done")

    @crabrt.tool(effect="external")
    async def charge() -> None:
        outside.send("charge")

    async def paying() -> None:
        await first()
        await charge()

    @crabrt.agent(workspace=ws, name="patient", gate_limit_ms=60_000)
    async def run() -> None:
        ask("start")
        await asyncio.gather(beside(), paying())

    await run()
    assert outside.got == ["charge"]
    assert place(store, Result, "beside") < place(store, Intent, "charge")
    points = [
        record.body.position
        for record in store.records()
        if isinstance(record.body, Checkpoint) and record.entry.seq < place(store, Intent, "charge")
    ]
    assert points[-1] >= place(store, Result, "beside")
    assert not [note for note in store.bodies(Noted) if note.topic == TOPIC]


async def test_a_tool_that_waits_for_the_call_is_not_waited_for_for_ever(
    ws: Path, outside: Outside, store, waits
) -> None:
    """It acts without a point then, says so, and is not as patient again in that turn."""
    charged = asyncio.Event()

    @crabrt.tool
    async def beside() -> None:
        await charged.wait()

    @crabrt.tool
    async def first() -> None: ...

    @crabrt.tool(effect="external")
    async def charge(amount: int) -> None:
        outside.send(str(amount))

    async def paying() -> None:
        await first()
        await charge(1)
        await charge(2)
        charged.set()

    @crabrt.agent(workspace=ws, name="impatient", gate_limit_ms=50)
    async def run() -> None:
        ask("start")
        await asyncio.gather(beside(), paying())

    with pytest.warns(crabrt.UnprotectedWarning, match="charge leaves the machine while another"):
        await run()
    assert outside.got == ["1", "2"]
    assert waits.count == 1
    assert [note.topic for note in store.turns()[1].notes] == [TOPIC, TOPIC]


async def test_calls_that_leave_the_machine_side_by_side_need_no_point(
    ws: Path, outside: Outside, store, waits
) -> None:
    """No resume makes them again: what each saw of the others stays true."""
    others = asyncio.Event()

    @crabrt.tool(effect="external")
    async def charge(amount: int) -> None:
        outside.send(str(amount))
        if amount == 0:
            await others.wait()

    async def paying() -> None:
        for amount in (1, 2, 3):
            await charge(amount)
        others.set()

    @crabrt.agent(workspace=ws, name="together")
    async def run() -> None:
        ask("start")
        await asyncio.gather(charge(0), paying())

    await run()
    assert sorted(outside.got) == ["0", "1", "2", "3"]
    assert waits.count == 0


@pytest.mark.parametrize("kind", ["irreversible", "read"])
def test_inside_of_another_tool_nobody_is_waited_for(
    kind: str, ws: Path, outside: Outside, store, waits
) -> None:
    """The outer tool cannot end before: that is said at once. Who only reads commits to nothing."""

    @crabrt.tool
    def build() -> None:
        (ws / "built").write_text("1")

    @crabrt.tool(effect="external", kind=kind)
    def call() -> None:
        outside.send("call")

    @crabrt.tool
    def deploy() -> None:
        build()
        call()

    @crabrt.agent(workspace=ws, name="nested", gate_limit_ms=60_000)
    def run() -> None:
        ask("start")
        deploy()

    if kind == "read":
        run()
    else:
        with pytest.warns(crabrt.UnprotectedWarning, match="call leaves the machine"):
            run()
    assert outside.got == ["call"]
    assert waits.count == 0
    told = [note for note in store.bodies(Noted) if note.topic == TOPIC]
    assert len(told) == (kind == "irreversible")


def test_a_strict_run_does_not_act_without_a_point(ws: Path, outside: Outside) -> None:
    @crabrt.tool
    def build() -> None: ...

    @crabrt.tool(effect="external")
    def call() -> None:
        outside.send("call")

    @crabrt.tool
    def deploy() -> None:
        build()
        call()

    @crabrt.agent(workspace=ws, name="strict", strict=True)
    def run() -> None:
        ask("start")
        deploy()

    with pytest.raises(crabrt.Unprotected, match="call leaves the machine"):
        run()
    assert outside.got == []


async def test_a_guess_neither_waits_nor_warns_and_is_on_record(
    ws: Path, outside: Outside, store, waits
) -> None:
    pushed = asyncio.Event()

    @crabrt.tool
    async def beside() -> None:
        await pushed.wait()

    @crabrt.tool
    async def sh(command: str) -> None:
        outside.send(command)

    async def pushing() -> None:
        await sh("make")
        await sh("git push")
        pushed.set()

    @crabrt.agent(workspace=ws, name="guessed", **BLIND)
    async def run() -> None:
        ask("start")
        await asyncio.gather(beside(), pushing())

    await run()
    assert outside.got == ["make", "git push"]
    assert waits.count == 0
    assert [note.topic for note in store.turns()[1].notes] == [TOPIC]


# -- looking closer ------------------------------------------------------------------------------


class Looking:
    """Holds who looks closer until it is let go, and then until the clock has moved on."""

    AT_LEAST_MS = 20

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.threads: list[int] = []

        def sharpen(_: Reaching) -> None:
            began = time.perf_counter()
            self.threads.append(threading.get_ident())
            self.entered.set()
            assert self.leave.wait(30), "nobody could let it go: the event loop is held"
            while (time.perf_counter() - began) * 1e3 < self.AT_LEAST_MS:
                pass

        monkeypatch.setattr(Reaching, "sharpen", sharpen)

    async def let_go(self) -> None:
        await asyncio.to_thread(self.entered.wait, 30)
        self.leave.set()


@pytest.mark.parametrize("beside", [False, True])
async def test_looking_closer_holds_no_event_loop_and_counts_as_held(
    beside: bool, ws: Path, store, monkeypatch
) -> None:
    """Beside a tool that has passed the gate, too."""
    looking, pushed = Looking(monkeypatch), asyncio.Event()

    @crabrt.tool
    async def slow() -> None:
        await pushed.wait()

    @crabrt.tool
    async def sh(command: str) -> None: ...

    async def push() -> None:
        await sh("git push")
        pushed.set()

    async with crabrt.open_run(workspace=ws, name="closer", gate_limit_ms=60_000):
        tasks = [slow()] if beside else []
        await asyncio.gather(*tasks, push(), looking.let_go())
    assert len(looking.threads) == 1
    assert looking.threads[0] != threading.get_ident()
    assert sum(body.exposed_ms for body in store.bodies(Gated)) >= Looking.AT_LEAST_MS


async def test_who_looks_closer_too_late_is_not_waited_for(ws: Path, store, monkeypatch) -> None:
    looking, made = Looking(monkeypatch), []

    @crabrt.tool
    async def sh(command: str) -> None:
        made.append(looking.leave.is_set())
        looking.leave.set()

    async with crabrt.open_run(workspace=ws, name="late", gate_limit_ms=50):
        await sh("git push")
    assert made == [False]


def test_a_turn_that_was_looked_at_too_late_clears_nobody() -> None:
    class Engine:
        models = Spans()
        network = AutoNetwork(b"")

    Engine.network.sharpen = lambda: True
    reaching = Reaching(Engine(), TurnMachine())
    reaching.sharpen()
    assert reaching.asked(ends_turn=False).interval.local
    reaching.missed()
    assert not reaching.asked(ends_turn=True).interval.local
    reaching.sharpen()
    assert reaching.asked(ends_turn=True).interval.local


def test_what_is_waited_for_side_by_side_is_counted_once(ws: Path, store, monkeypatch) -> None:
    """Two pushes behind one slow look: as long as that took, and not twice as long."""
    looking = Looking(monkeypatch)
    looking.leave.set()

    @crabrt.tool
    async def sh(command: str) -> None: ...

    @crabrt.agent(workspace=ws, name="once")
    async def run() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(sh(f"git push {n}") for n in range(4)))
        return (time.perf_counter() - began) * 1e3

    took_ms = asyncio.run(run())
    held_ms = sum(body.exposed_ms for body in store.bodies(Gated))
    assert Looking.AT_LEAST_MS <= held_ms <= took_ms + 1


def test_the_machine_is_quiet_when_the_last_tool_has_ended() -> None:
    machine = TurnMachine()
    assert machine.quiet().done()
    machine.open()
    machine.tool_began()
    machine.tool_began()
    waiting, cancelled = machine.quiet(), machine.quiet()
    assert cancelled.cancel()
    machine.tool_ended()
    assert not waiting.done()
    machine.rest()
    assert waiting.done()
    machine.wake()
    assert not machine.quiet().done()


def test_what_was_not_saved_is_known_until_a_checkpoint_is_asked_for() -> None:
    machine = TurnMachine()
    machine.open()
    for left in (True, False):
        machine.tool_began()
        machine.tool_ended(left=left)
        assert (machine.owes_point, machine.unsaved) == (True, not left)
    machine.checkpointed()
    assert (machine.owes_point, machine.unsaved) == (False, False)
