"""Resumes that would be answered wrongly by an obvious reading of the journal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Checkpoint, TurnOpened
from crabrt.core.failpoints import ALL
from crabrt.core.targets import parse_target
from crabrt.errors import StoreUnavailable
from crabrt.journal import Journal, RunIndex
from crabrt.journal.outside import suspects
from crabrt.operations.forking import fork_to
from crabrt.operations.targets import resolve
from crabrt.runtime import checkpoints
from crabrt.runtime.session import Session
from crabrt.store import Store


@pytest.fixture(autouse=True)
def ctrl_c():
    """As in a terminal: whoever is started in the background ignores it, and what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@crabrt.model
def think(messages: list[dict]) -> str:
    return "ok"


def ask(text: object) -> str:
    return think([{"role": "user", "content": str(text)}])


def test_a_generator_tool_returns_on_resume_what_it_returned(ws: Path, killed, die) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def steps():
            yield 1
            return "returned"

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        def both():
            return (yield from steps())

        @crabrt.agent(workspace=ws, name="returner")
        def run() -> str:
            generator = both()
            assert next(generator) == 1
            try:
                next(generator)
            except StopIteration as stop:
                ask("next")
                act()
                return stop.value
            return "never"

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "returned"


def test_a_stream_that_broke_replays_its_pieces_and_then_breaks(ws: Path, killed, die) -> None:
    def agent(deadly: bool):
        @crabrt.model
        def stream(messages: list[dict]):
            yield from "ab"
            raise ConnectionError("lost")

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="broken")
        def run() -> str:
            got = ""
            try:
                for piece in stream([{"role": "user", "content": "x"}]):
                    got += piece
            except ConnectionError as error:
                got += str(error)
            ask(got)
            act()
            return got

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "ablost"


class Chunks:
    def __init__(self) -> None:
        self.items = iter("ab")

    def __iter__(self):
        return self

    def __next__(self) -> str:
        return next(self.items)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_replayed_stream_is_a_context_manager_as_its_client_was(ws: Path, killed, die) -> None:
    def agent(deadly: bool):
        @crabrt.model
        def stream(messages: list[dict]) -> Chunks:
            return Chunks()

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="managed")
        def run() -> str:
            with stream([{"role": "user", "content": "x"}]) as pieces:
                text = "".join(pieces)
            act()
            return text

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "ab"


@pytest.mark.parametrize(
    "raising",
    [
        lambda: os.stat("/nowhere/at/all"),
        lambda: b"\xff".decode(),
        lambda: compile("a b", "x.py", "exec"),
        lambda: {}["missing"],
    ],
)
def test_a_builtin_error_says_the_same_on_resume(raising, ws: Path, killed, die) -> None:
    """Loops show errors to the model: another text would be another request."""

    def agent(deadly: bool):
        @crabrt.tool
        def fails() -> None:
            raising()

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="erring")
        def run() -> str:
            try:
                fails()
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
            ask(told)
            act()
            return told

        return run

    killed(lambda: agent(deadly=True)())
    with pytest.raises(Exception) as caught:
        raising()
    told = f"{type(caught.value).__name__}: {caught.value}"
    assert agent(deadly=False).resume("last") == told


def test_a_value_whose_class_fails_to_encode_does_not_stop_the_loop(ws: Path, store) -> None:
    class Awkward:
        pass

    def refuse(value: Awkward) -> str:
        raise RuntimeError("not now")

    crabrt.register_codec(Awkward, "awkward", refuse, lambda _: Awkward())

    @crabrt.tool
    def awkward(value: Awkward) -> Awkward:
        return value

    @crabrt.agent(workspace=ws, name="awkward")
    def run() -> None:
        awkward(Awkward())
        ask("next")
        awkward(Awkward())

    with pytest.warns(crabrt.UnprotectedWarning) as told:  # once: at a resume it is too late
        run()
    assert [turn.turn for turn in store.turns()] == [0, 1, 2]
    assert len(told) == 1
    assert "what awkward gave cannot be stored" in str(told[0].message)
    assert "not now" in str(told[0].message)


def test_killed_right_after_a_rollback_the_turn_keeps_its_base(
    ws: Path, killed, die, store
) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def write(n: int) -> None:
            (ws / "a").write_text(str(n))

        @crabrt.agent(workspace=ws, name="rolled")
        def run() -> str:
            for n in range(3):
                ask(n)
                write(n)
            crabrt.current_run().rollback(to=1)
            if deadly:
                die()
            ask("more")
            crabrt.current_run().checkpoint(label="after")
            write(9)
            return (ws / "a").read_text()

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "9"
    opened = [(body.turn, body.base) for body in store.bodies(TurnOpened)]
    assert opened == [(1, 0), (2, 1), (3, 2), (4, 1)]
    with RunIndex.open(store.home) as index:
        index.refresh()
        assert index.find("last").labels["after"] > (4, 1), "4.1 is the rollback's own"


class Missing:
    """A journal that cannot be written for some entries: `at` says for which."""

    def __init__(self, monkeypatch, at) -> None:
        original, self.hits = Journal.append, 0

        def append(journal, body, *, turn):
            if at(body):
                self.hits += 1
                raise StoreUnavailable("no space left")
            return original(journal, body, turn=turn)

        monkeypatch.setattr(Journal, "append", append)


@pytest.mark.parametrize("answers", [True, False], ids=["disk answers", "disk hangs"])
def test_entries_that_are_missing_refuse_the_resume_past_them_with_the_reason(
    ws: Path, killed, die, store, monkeypatch, answers
) -> None:
    """A tool whose result was lost is not run again on a state that has its effect already."""
    (ws / "n").write_text("0")

    def agent(deadly: bool):
        @crabrt.tool
        def count() -> str:
            n = str(int((ws / "n").read_text()) + 1)
            (ws / "n").write_text(n)
            return n

        @crabrt.agent(workspace=ws, name="gappy", strict=False)
        def run() -> str:
            for n in range(4):
                ask(n)
                count()
            ask("last")
            if deadly:
                die()
            return (ws / "n").read_text()

        return run

    def body() -> None:
        warnings.simplefilter("ignore")
        lost: list[int] = []

        def at(body) -> bool:
            if body.kind == "result":
                lost.append(1)
                return len(lost) == 2
            return False

        Missing(monkeypatch, at)
        if not answers:
            ALL["checkpoint.synced"].action = threading.Event().wait
        agent(deadly=True)()

    killed(body)
    assert bool(store.bodies(Checkpoint)) is answers
    with pytest.raises(crabrt.NotResumable, match="no space left"):
        agent(deadly=False).resume("last")
    run = store.run().run
    with pytest.raises(crabrt.NotResumable, match="no space left"):  # nor from a turn behind them
        agent(deadly=False).resume(f"{run}@3")
    assert agent(deadly=False).resume(f"{run}@1") == "4"


def counting_in_points(ws: Path, *, point: bool):
    """Five turns that append to a file, with a point inside of each where that is asked for."""

    @crabrt.tool
    def add(n: int) -> None:
        with (ws / "n").open("a") as file:
            file.write(str(n))

    def count() -> str:
        for n in range(5):
            ask(n)
            add(n)
            if point:
                crabrt.current_run().checkpoint()
                add(n)
        return (ws / "n").read_text()

    return count


@pytest.mark.parametrize(("point", "last"), [(False, "3"), (True, "4.1")])
def test_a_resume_that_is_refused_for_a_gap_names_the_last_turn_that_is_not(
    ws: Path, killed, die, store, monkeypatch, point, last
) -> None:
    count, counted = counting_in_points(ws, point=point), "0011223344" if point else "01234"
    agent = crabrt.agent(workspace=ws, name="gappy")(count)

    @crabrt.agent(workspace=ws, name="gappy")
    def deadly() -> None:
        count()
        crabrt.current_run().checkpoint()
        die()

    def body() -> None:
        warnings.simplefilter("ignore")
        results = iter(range(1, 20))
        last_of_turn_4 = 8 if point else 4
        Missing(monkeypatch, lambda b: b.kind == "result" and next(results) == last_of_turn_4)
        deadly()

    def refused(target: str) -> str:
        with pytest.raises(crabrt.NotResumable, match="no space left") as error:
            agent.resume(target)
        words, command, _ = error.value.hint.split("`")
        assert words == "the last turn before them: "
        return command.removeprefix("crab resume ")

    killed(body)
    run = store.run().run
    assert refused(run) == f"{run}@{last}"
    fork = refused(f"{run}@4")  # it is made all the same, and the same is true of it
    assert fork.endswith(f"@{last}")
    assert not fork.startswith(run)
    for target in (fork, f"{run}@{last}"):
        assert agent.resume(target) == counted


def test_a_run_whose_last_entries_are_missing_does_them_again(
    ws: Path, killed, die, monkeypatch
) -> None:
    (ws / "n").write_text("0")

    def agent(deadly: bool):
        @crabrt.tool
        def count() -> str:
            n = str(int((ws / "n").read_text()) + 1)
            (ws / "n").write_text(n)
            if deadly and n == "2":
                crabrt.current_run()
            return n

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="tail")
        def run() -> str:
            ask("one")
            count()
            ask("two")
            count()
            act()
            return (ws / "n").read_text()

        return run

    def body() -> None:
        warnings.simplefilter("ignore")
        lost: list[int] = []

        def at(body) -> bool:
            if body.kind == "result":
                lost.append(1)
                return len(lost) == 2
            return False

        Missing(monkeypatch, at)
        agent(deadly=True)()

    killed(body)
    assert agent(deadly=False).resume("last") == "2"


def test_an_external_call_without_a_written_intent_is_not_made(
    ws: Path, store, monkeypatch
) -> None:
    made: list[int] = []

    @crabrt.tool(effect="external")
    def charge(n: int) -> str:
        made.append(n)
        return "charged"

    @crabrt.agent(workspace=ws, name="refused")
    def run() -> str:
        try:
            charge(1)
        except crabrt.NotDurable:
            return "refused"
        return "charged"

    missing = Missing(monkeypatch, lambda body: body.kind == "intent")
    with pytest.warns(crabrt.UnprotectedWarning):
        assert run() == "refused"
    assert missing.hits
    assert made == []


def charging(ws: Path, on_last_turn, *, caught: bool):
    """A loop with an external call, which it may go on without; then there is another turn."""

    @crabrt.tool(effect="external")
    def charge(n: int) -> None:
        with (ws.parent / "made").open("a") as file:
            file.write(str(n))

    @crabrt.tool
    def act(turn: int) -> None:
        (ws / f"{turn}").write_text("x")
        if turn == 2:
            on_last_turn()

    @crabrt.agent(workspace=ws, name="charging")
    def run() -> str:
        ask("what now?")
        act(1)
        outcome = "charged"
        try:
            charge(1)
        except crabrt.NotDurable:
            if not caught:
                raise
            outcome = "stopped"
        ask(outcome)
        act(2)
        charge(2)
        return outcome

    return run


@pytest.mark.parametrize(
    ("lost", "caught"),
    [
        (["intent"], False),
        (["intent"], True),
        (["intent", "result"], False),
        (["intent", "result"], True),
        (["intent", "intent"], False),  # also when it is to be made up for
    ],
)
def test_a_call_that_was_stopped_as_its_intent_was_not_written_leaves_no_gap(
    ws: Path, killed, die, monkeypatch, lost, caught
) -> None:
    """It did nothing: whenever there is room again, the journal can say so."""
    made = ws.parent / "made"

    def body() -> None:
        warnings.simplefilter("ignore")
        left = list(lost)

        def at(body) -> bool:
            mine = left and body.kind == left[0] and body.call.callable == "charge"
            return bool(mine and left.pop(0))

        Missing(monkeypatch, at)
        with contextlib.suppress(crabrt.NotDurable):
            charging(ws, die, caught=caught)()
        die()

    killed(body)
    assert not made.exists()
    resumed = charging(ws, lambda: None, caught=caught)
    for _ in range(2):
        assert resumed.resume("last") == ("stopped" if caught else "charged")
    assert made.read_text() == ("2" if caught else "12")


@pytest.mark.parametrize("lost", ["the other result", "its own intent"])
def test_what_acted_while_the_journal_could_not_be_written_is_a_gap(
    ws: Path, killed, die, monkeypatch, lost
) -> None:
    """Beside a call that was stopped, another one acted; or it was not stopped at all."""
    made = ws.parent / "made"
    how = {"on_not_durable": "warn"} if lost == "its own intent" else {}

    def agent(deadly: bool):
        broken, go_on = [], asyncio.Event()

        @crabrt.tool
        async def slow() -> str:
            await go_on.wait()
            with made.open("a") as file:
                file.write("slow ")
            return "done"

        @crabrt.tool(effect="external")
        async def charge() -> None:
            with made.open("a") as file:
                file.write("charged ")

        async def other() -> None:
            broken.append(1)
            with contextlib.suppress(crabrt.NotDurable):
                await charge()
            if lost == "its own intent":
                broken.clear()
            go_on.set()

        @crabrt.agent(workspace=ws, name="beside", gate_limit_ms=100, **how)
        async def run() -> None:
            ask("what now?")
            if deadly:
                Missing(monkeypatch, lambda body: broken and body.kind in {"intent", "result"})
            await asyncio.gather(slow(), other())
            broken.clear()
            ask("and now?")
            if deadly:
                crabrt.current_run().checkpoint()
                die()

        return run

    def body() -> None:
        warnings.simplefilter("ignore")
        asyncio.run(agent(deadly=True)())

    killed(body)
    acted = "slow " if lost == "the other result" else "charged slow "
    assert made.read_text() == acted
    with pytest.raises(crabrt.NotResumable, match="no space left"):
        asyncio.run(agent(deadly=False).resume("last"))
    assert made.read_text() == acted


def test_an_external_call_stopped_before_it_acted_is_in_no_doubt(
    ws: Path, killed, die, monkeypatch
) -> None:

    made = ws.parent / "made"

    def agent(deadly: bool):
        @crabrt.tool(effect="external")
        def charge(n: int) -> str:
            made.write_text(str(n))
            return "charged"

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="stopped")
        def run() -> str:
            with contextlib.suppress(crabrt.NotDurable):
                charge(1)
            ask("and now?")
            act()
            return charge(2)

        return run

    def body() -> None:
        warnings.simplefilter("ignore")
        original, hits = Session._sync, []

        def fail_once(self) -> None:
            hits.append(1)
            if len(hits) == 1:
                raise StoreUnavailable("no space left")
            original(self)

        monkeypatch.setattr(Session, "_sync", fail_once)
        agent(deadly=True)()

    killed(body)
    assert not made.exists()
    assert agent(deadly=False).resume("last") == "charged"
    assert made.read_text() == "2"


def full_disk_once(monkeypatch, at: int) -> None:
    """The `at`-th time a store is made durable, its disk is full."""
    original, times = Session._sync, []

    def sync(self) -> None:
        times.append(1)
        if len(times) == at:
            raise StoreUnavailable("no space left")
        original(self)

    monkeypatch.setattr(Session, "_sync", sync)


def test_an_external_call_that_was_stopped_is_made_by_a_resume(ws: Path, monkeypatch) -> None:
    """The disk was full; the user has made room."""
    made = ws.parent / "made"

    @crabrt.tool(effect="external")
    def charge() -> str:
        with made.open("a") as file:
            file.write("1")
        return "charged"

    @crabrt.agent(workspace=ws, name="stopped")
    def run() -> str:
        ask("what now?")
        return charge()

    full_disk_once(monkeypatch, at=1)
    with pytest.raises(crabrt.NotDurable):
        run()
    assert not made.exists()
    assert run.resume("last") == "charged"
    assert run.resume("last") == "charged"
    assert made.read_text() == "1"


def interrupted_once(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the loop waits until what an external call depends on is durable."""
    original, times = Session._sync, []

    def sync(self) -> None:
        times.append(1)
        if len(times) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        original(self)

    patch.setattr(Session, "_sync", sync)


def refused_once(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint before an external call cannot be made durable."""
    original, times = Session.durable_gate, []

    def gate(self, **how):
        times.append(1)
        if len(times) == 1:
            self.not_durable("no space left")
        yield from original(self, **how)

    patch.setattr(Session, "durable_gate", gate)


def full_once(patch: pytest.MonkeyPatch) -> None:
    full_disk_once(patch, at=1)


@pytest.mark.parametrize("stopped", [full_once, refused_once, interrupted_once])
@pytest.mark.parametrize("caught", [False, True])
def test_whatever_stopped_an_external_call_before_it_acted(
    ws: Path, killed, die, stopped, caught
) -> None:
    """Where the loop went on from that, so does a resume; else the call is made."""
    made = ws.parent / "made"

    def agent(deadly: bool):
        @crabrt.tool(effect="external")
        def charge(n: int) -> None:
            with made.open("a") as file:
                file.write(str(n))

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="stopped")
        def run() -> str:
            ask("what now?")
            outcome = "charged"
            try:
                charge(1)
            except (crabrt.NotDurable, KeyboardInterrupt):
                if not caught:
                    raise
                outcome = "stopped"
            ask(outcome)
            act()
            charge(2)
            return outcome

        return run

    def body() -> None:
        stopped(pytest.MonkeyPatch())
        with contextlib.suppress(crabrt.NotDurable, KeyboardInterrupt):
            agent(deadly=True)()
        die()

    killed(body)
    assert not made.exists()
    for _ in range(2):
        assert agent(deadly=False).resume("last") == ("stopped" if caught else "charged")
    assert made.read_text() == ("2" if caught else "12")


def test_what_acted_before_a_call_in_it_was_stopped_is_in_doubt(ws: Path, monkeypatch) -> None:
    """The outer call raises what the inner one was stopped by, and has acted all the same."""
    made = ws.parent / "made"

    @crabrt.tool(effect="external")
    def notify() -> None:
        pass

    @crabrt.tool(effect="external")
    def charge() -> None:
        with made.open("a") as file:
            file.write("1")
        notify()

    @crabrt.agent(workspace=ws, name="nested")
    def run() -> None:
        ask("what now?")
        charge()

    full_disk_once(monkeypatch, at=2)
    with pytest.raises(crabrt.NotDurable):
        run()
    with pytest.raises(crabrt.InDoubt):
        run.resume("last")
    assert made.read_text() == "1"


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("held_at", ["its gate", "being made durable"])
def test_an_external_call_is_made_by_a_resume_after_its_loop_was_cancelled(
    ws: Path, store, monkeypatch, held_at, declared
) -> None:
    made = ws.parent / "made"
    arrived, go_on = threading.Event(), threading.Event()

    def hold(*args: object) -> None:
        arrived.set()
        assert go_on.wait(30)

    @crabrt.model
    async def answer(messages: list[dict]) -> str:
        return "ok"

    @crabrt.tool(effect="external" if declared else "auto")
    async def bash(command: str) -> str:
        with made.open("a") as file:
            file.write("1")
        return "charged"

    @crabrt.agent(workspace=ws, name="cancelled")
    async def run() -> str:
        await answer([{"role": "user", "content": "what now?"}])
        return await bash("curl -d amount=5 https://shop.example/charge")

    async def cancelled() -> None:
        loop = asyncio.ensure_future(run())
        await asyncio.to_thread(arrived.wait, 30)
        loop.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await loop

    with monkeypatch.context() as patch:
        if held_at == "its gate":
            patch.setattr(ALL["checkpoint.scanned"], "action", hold)
        else:
            patch.setattr(Session, "_sync", hold)
        asyncio.run(cancelled())
    assert not made.exists()
    assert not [tool for turn in store.turns() for tool, _ in suspects(turn)]
    for _ in range(2):
        assert asyncio.run(run.resume("last")) == "charged"
    assert made.read_text() == "1"


def interruptible(ws: Path, during: str, **declared: str):
    """A loop of two turns that gets Ctrl-C in the second, while its list of calls is not empty."""
    interrupts: list[int] = []

    async def work(here: str, n: int) -> None:
        if here == during and n == 1 and interrupts:
            interrupts.pop()
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(30)

    @crabrt.model
    async def answer(messages: list[dict]) -> str:
        await work("a model call", len(messages))
        return "ok"

    @crabrt.tool(**declared)
    async def act(n: int) -> int:
        with (ws.parent / "made").open("a") as file:
            file.write(str(n))
        await work("a tool call", n)
        return n

    @crabrt.agent(workspace=ws, name="interrupted")
    async def run() -> list[int]:
        done = []
        for n in range(2):
            await answer([{"role": "user", "content": "go on"}] * n)
            done.append(await act(n))
        return done

    return run, interrupts


@pytest.mark.parametrize("declared", [{}, {"effect": "external", "in_doubt": "retry"}])
@pytest.mark.parametrize(("during", "made"), [("a model call", "01"), ("a tool call", "0111")])
def test_a_loop_that_got_ctrl_c_goes_on_with_the_call_it_was_in(
    ws: Path, home: Path, during, made, declared
) -> None:
    run, interrupts = interruptible(ws, during, **declared)
    for start in (run, lambda: run.resume("last")):
        interrupts.append(1)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(start())
    for _ in range(2):
        assert asyncio.run(run.resume("last")) == [0, 1]
    assert (ws.parent / "made").read_text() == made


def test_what_was_acting_outside_at_ctrl_c_is_in_doubt(ws: Path, home: Path) -> None:
    run, interrupts = interruptible(ws, "a tool call", effect="external")
    interrupts.append(1)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    with pytest.raises(crabrt.InDoubt):
        asyncio.run(run.resume("last"))
    assert (ws.parent / "made").read_text() == "01"


@pytest.mark.parametrize("forked", ["last", "last@2"])
def test_a_fork_of_a_loop_that_got_ctrl_c_goes_on_too(ws: Path, home: Path, forked) -> None:
    run, interrupts = interruptible(ws, "a model call")
    interrupts.append(1)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    with Store.open(home) as opened, RunIndex.open(home) as index:
        index.refresh()
        state = resolve(index, parse_target(forked))
        made = fork_to(opened, state, ws.parent / "beside")
    assert asyncio.run(run.resume(made.run)) == [0, 1]


@pytest.mark.parametrize("limited", [asyncio.timeout, None])
def test_a_call_that_ran_into_a_time_limit_does_so_again(ws: Path, home: Path, limited) -> None:
    """It does not run; but the limit is the loop's, and has to see that it was reached."""
    begun, interrupt = [], [1]

    @crabrt.tool
    async def slow() -> None:
        begun.append(1)
        await asyncio.sleep(30)

    @crabrt.tool
    async def act() -> str:
        if interrupt:
            interrupt.pop()
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(30)
        return "acted"

    @crabrt.agent(workspace=ws, name="timeouts")
    async def run() -> str:
        with contextlib.suppress(TimeoutError):
            if limited is None:
                await asyncio.wait_for(slow(), 0.2)
            else:
                async with limited(0.2):
                    await slow()
        return await act()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    assert asyncio.run(run.resume("last")) == "acted"
    assert begun == [1]


def test_a_disk_that_fails_after_an_external_call_does_not_hide_that_it_happened(
    ws: Path, store, monkeypatch
) -> None:

    original, broken = Session._sync, []

    def sync(self) -> None:
        if broken:
            raise StoreUnavailable("no space left")
        original(self)

    monkeypatch.setattr(Session, "_sync", sync)

    @crabrt.tool(effect="external")
    def charge(n: int) -> str:
        broken.append(n)
        return "charged"

    @crabrt.agent(workspace=ws, name="after")
    def run() -> str:
        return charge(1)

    with pytest.warns(crabrt.UnprotectedWarning, match="not durable"):
        assert run() == "charged"


def test_the_same_external_call_in_two_child_runs_is_made_twice(ws: Path, killed, die) -> None:
    """Each child is a run of its own: its first call looks like its sibling's first call."""
    ledger = ws.parent / "ledger"

    def agents(deadly: bool):
        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            return "charged"

        @crabrt.tool
        def act(last: bool) -> None:
            if deadly and last:
                die()

        @crabrt.agent(workspace=ws, name="child")
        def child(last: bool) -> str:
            act(last)
            return charge(5)

        @crabrt.agent(workspace=ws, name="boss")
        def boss() -> str:
            child(False)
            child(True)
            return charge(5)

        return boss

    killed(lambda: agents(deadly=True)())
    assert agents(deadly=False).resume("boss") == "charged"
    assert ledger.read_text() == "5\n" * 3


@pytest.mark.filterwarnings("ignore::crabrt.UnprotectedWarning")  # it is made beside another tool
def test_an_external_call_in_doubt_stays_so_when_an_earlier_tool_now_says_otherwise(
    ws: Path, killed, die
) -> None:
    ledger, world = ws.parent / "ledger", ws.parent / "world"
    world.write_text("before")

    def agent(deadly: bool):
        release = asyncio.Event()

        @crabrt.tool
        async def slow() -> None:
            await release.wait()

        @crabrt.tool
        async def look() -> str:
            return world.read_text()

        @crabrt.tool(effect="external")
        async def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            if deadly:
                die()
            return "charged"

        async def other() -> None:
            await look()
            await charge(5)
            release.set()

        @crabrt.agent(workspace=ws, name="parallel", gate_limit_ms=100)
        async def run() -> None:
            ask("start")
            await asyncio.gather(slow(), other())

        return run

    killed(lambda: asyncio.run(agent(deadly=True)()))
    world.write_text("after")
    with pytest.raises(crabrt.InDoubt):
        asyncio.run(agent(deadly=False).resume("last"))
    assert ledger.read_text() == "5\n"


@pytest.mark.filterwarnings("ignore:.*what spawn gave cannot be stored")
def test_a_resumed_fork_leaves_the_processes_of_its_live_parent_alone(
    ws: Path, tmp_path: Path, home: Path, store, monkeypatch
) -> None:
    """Where no image brings them back for the fork; see tests/process for where one does."""
    monkeypatch.setenv("CRAB_CRIU", str(tmp_path / "nothing"))
    alive: list[bool] = []

    @crabrt.tool
    def spawn() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    @crabrt.agent(workspace=ws, name="parent")
    def run() -> None:
        ask("one")
        child = spawn()
        ask("two")
        crabrt.current_run().checkpoint()
        try:
            thread = threading.Thread(target=resume_fork)
            thread.start()
            thread.join()
            alive.append(child.poll() is None)
        finally:
            child.kill()
            child.communicate()

    def resume_fork() -> None:
        with Store.open(home) as opened, RunIndex.open(home) as index:
            index.refresh()
            state = resolve(index, parse_target("parent@1"))
            fork = fork_to(opened, state, tmp_path / "elsewhere", paths="keep")
        with (
            pytest.warns(crabrt.RestoreWarning, match="is not back: "),
            crabrt.open_run(workspace=tmp_path / "elsewhere", resume=fork.run),
        ):
            pass

    run()
    assert alive == [True]


def test_what_the_resumed_loop_starts_is_not_asked_to_resume_it(
    ws: Path, killed, die, monkeypatch
) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def act() -> str | None:
            if deadly:
                die()
            return os.environ.get("CRAB_RESUME")

        @crabrt.agent(workspace=ws, name="inherited")
        def run() -> str | None:
            return act()

        return run

    killed(lambda: agent(deadly=True)())
    monkeypatch.setenv("CRAB_RESUME", "inherited")
    assert agent(deadly=False)() is None


def test_an_open_run_is_resumed_by_the_variable_too(
    ws: Path, killed, die, monkeypatch, store
) -> None:
    def body(deadly: bool) -> None:
        with crabrt.open_run(workspace=ws, name="block") as run:
            run.tool_call("one", {}, lambda: (ws / "a").write_text("x"))
            if deadly:
                die()

    killed(lambda: body(deadly=True))
    monkeypatch.setenv("CRAB_RESUME", "block")
    body(deadly=False)
    assert [(row.name, row.status) for row in store.runs()] == [("block", "done")]


def test_a_run_that_changed_files_without_tools_is_restorable_and_not_replayable(
    ws: Path, killed, die, store
) -> None:
    @crabrt.model
    def ask(messages: list[dict]) -> str:
        if len(messages) == 3:
            die()
        return "ok"

    @crabrt.agent(workspace=ws, name="toolless")
    def run() -> None:
        messages = []
        for i in range(3):
            messages.append({"role": "user", "content": str(i)})
            ask(messages)
            (ws / f"{i}").write_text("by the loop itself")

    killed(run)
    with pytest.raises(crabrt.NotResumable, match="recorded no tool calls"):
        run.resume("last")
    assert [turn.restorable for turn in store.turns()][:2] == [True, True]


@pytest.mark.parametrize("dies_in", ["the call", "the next tool", "the scan"])
def test_a_turn_that_acted_outside_is_external_whoever_ends_it(
    dies_in, ws: Path, killed, die, store, monkeypatch
) -> None:
    monkeypatch.setattr(checkpoints.FP_SCANNED, "action", None)
    ledger = ws.parent / "ledger"

    def agent(deadly: bool):
        def end(place: str) -> None:
            if deadly and place == dies_in:
                die()

        @crabrt.model
        def ask(number: int) -> str:
            return f"do {number}"

        @crabrt.tool(effect="external")
        def charge() -> str:
            ledger.touch()
            end("the call")
            return "charged"

        @crabrt.tool
        def send(command: str) -> str:
            return command  # taken for external, by its words

        @crabrt.tool
        def write(text: str) -> None:
            (ws / "receipt").write_text(text)
            end("the next tool")

        @crabrt.agent(workspace=ws, name="payer")
        def run() -> str:
            ask(1)
            send("git push origin main")
            receipt = charge()
            write(receipt)
            checkpoints.FP_SCANNED.action = lambda: end("the scan")
            ask(2)
            return receipt

        return run

    killed(lambda: agent(deadly=True)())
    assert ledger.exists()
    assert "external" not in store.turns()[1].verdict
    if dies_in == "the call":
        with pytest.raises(crabrt.InDoubt):
            agent(deadly=False).resume("last")
    else:
        assert agent(deadly=False).resume("last") == "charged"
    turn = store.turns()[1]
    assert "external" in turn.verdict
    told = "\n".join(turn.evidence)
    assert "charge (declared)" in told
    assert "send" in told
