"""Resume: a loop that was really SIGKILLed goes on, and ends like one that was left alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Forked, Intent, Noted, Resumed, Superseded
from crabrt.core.failpoints import ALL


@crabrt.model
def think(messages: list[dict]) -> str:
    """Ends a turn."""
    return "ok"


class World:
    """A loop over a workspace, the calls that really happened, and where it is to die."""

    def __init__(self, ws: Path, die) -> None:
        self.ws = ws
        self.log = ws.parent / "calls.log"  # outside the workspace: it survives restores
        self.die_at: str | None = None
        self.die = die

    def called(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(what + "\n")
        if what == self.die_at:
            self.die()

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def agent(self, steps: int = 4, **options):
        world = self

        @crabrt.tool
        def write(name: str, text: str) -> str:
            (world.ws / name).write_text(text[: len(text) // 2])
            world.called(f"half-{name}")
            (world.ws / name).write_text(text)
            os.utime(world.ws / name, ns=(0, 10**18))
            world.called(f"wrote-{name}")
            return f"wrote {name}"

        @crabrt.model
        def think(messages: list[dict]) -> dict:
            n = sum(m["role"] == "assistant" for m in messages)
            world.called(f"asked-{n}")
            world.called(f"answered-{n}")
            return {"role": "assistant", "content": f"{n}"}

        @crabrt.agent(workspace=world.ws, name="worker", **options)
        def work(task: str) -> str:
            messages = [{"role": "user", "content": task}]
            for i in range(steps):
                messages.append(think(messages))
                messages.append({"role": "user", "content": write(f"f{i % 3}", f"{task}-{i}" * 50)})
            return messages[-1]["content"]

        return work


@pytest.fixture
def world(ws: Path, die) -> World:
    return World(ws, die)


def undisturbed(tmp_path: Path, die, state) -> str:
    other = tmp_path / "twin" / "ws"
    other.mkdir(parents=True)
    World(other, die).agent()("t")
    return state(other)


MOMENTS = [
    "asked-0",
    "answered-0",
    "half-f0",
    "wrote-f0",
    "asked-1",
    "answered-2",
    "half-f2",
    "wrote-f0",
]


@pytest.mark.parametrize("moment", sorted(set(MOMENTS)))
def test_killed_at_any_step_it_ends_like_the_undisturbed_twin(
    moment: str, world: World, killed, die, tmp_path: Path, state, store
) -> None:
    world.die_at = moment
    killed(lambda: world.agent()("t"))
    world.die_at = None
    assert store.run().status == "crashed"
    assert world.agent().resume("last") == "wrote f0"
    assert state(world.ws) == undisturbed(tmp_path, die, state)
    assert store.run().status == "done"
    assert len(store.turns()) == 5


def test_sealed_calls_are_answered_and_only_the_open_one_runs_again(world: World, killed) -> None:
    world.die_at = "half-f2"
    killed(lambda: world.agent()("t"))
    before = len(world.calls)
    world.die_at = None
    world.agent().resume("last")
    assert world.calls[before:] == [
        "half-f2", "wrote-f2", "asked-3", "answered-3", "half-f0", "wrote-f0",
    ]  # fmt: skip


def test_killed_while_the_model_thinks_it_goes_on_in_place(world: World, killed, store) -> None:
    world.die_at = "asked-2"
    killed(lambda: world.agent()("t"))
    world.die_at = None
    world.agent().resume("last")
    assert [r.mode for r in store.bodies(Resumed)] == ["in-place"]


def test_killed_inside_a_tool_the_workspace_is_put_back_first(world: World, killed, store) -> None:
    world.die_at = "half-f1"
    killed(lambda: world.agent()("t"))
    (world.ws / "stray").write_text("half-done work of the killed tool")
    world.die_at = None
    world.agent().resume("last")
    assert [r.mode for r in store.bodies(Resumed)] == ["restored"]
    assert not (world.ws / "stray").exists()


def test_killed_again_and_again_it_still_ends_right(
    world: World, killed, die, tmp_path: Path, state, store
) -> None:
    world.die_at = "half-f0"
    killed(lambda: world.agent()("t"))
    run = store.run().run
    for moment in ("wrote-f1", "asked-3", "half-f0"):
        world.die_at = moment
        killed(lambda: world.agent().resume(run))
    world.die_at = None
    world.agent().resume(run)
    assert state(world.ws) == undisturbed(tmp_path, die, state)
    assert len(store.bodies(Resumed, run)) == 4


def test_what_a_person_edited_while_it_was_dead_is_kept_when_it_goes_on_in_place(
    world: World, killed
) -> None:
    world.die_at = "asked-2"
    killed(lambda: world.agent()("t"))
    (world.ws / "notes.md").write_text("mine")
    world.die_at = None
    world.agent().resume("last")
    assert (world.ws / "notes.md").read_text() == "mine"


def test_after_a_reboot_the_disk_is_not_trusted_to_be_the_state(
    world: World, killed, store, monkeypatch
) -> None:
    world.die_at = "asked-2"
    killed(lambda: world.agent()("t"))
    world.die_at = None
    monkeypatch.setattr("crabrt.runtime.inplace.boot_id", lambda: "another boot")
    world.agent().resume("last")
    assert [r.mode for r in store.bodies(Resumed)] == ["restored"]


def test_a_finished_run_returns_its_sealed_result_and_acts_on_nothing(
    world: World, state, store
) -> None:
    assert world.agent()("t") == "wrote f0"
    calls, before, entries = len(world.calls), state(world.ws), len(store.records())
    assert world.agent().resume("last") == "wrote f0"
    assert crabrt.resume("worker") == "wrote f0"
    assert (len(world.calls), state(world.ws), len(store.records())) == (calls, before, entries)


def test_resuming_from_an_earlier_turn_is_a_new_run_that_begins_with_its_history(
    world: World, store, state
) -> None:
    world.agent()("t")
    first = store.run().run
    world.agent(steps=3).resume(f"{first}@2")
    runs = store.runs()
    assert len(runs) == 2
    fork = next(run for run in runs if run.run != first)
    assert (fork.parent, fork.family) == (first, first)
    assert len(store.turns(fork.run)) == 4
    assert store.run(first).status == "done"
    assert len(store.turns(first)) == 5, "a journal only grows"
    assert isinstance(store.bodies(Forked, fork.run)[0], Forked)


def test_two_resumes_at_once_are_refused_with_the_pid(world: World, killed, home: Path) -> None:
    world.die_at = "asked-1"
    killed(lambda: world.agent()("t"))
    world.die_at = None
    errors = []

    @crabrt.tool
    def blocked() -> None:
        try:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
        finally:
            pass

    def attempt() -> None:
        try:
            world.agent().resume("worker")
        except crabrt.RunBusy as error:
            errors.append(error)

    original = world.called
    world.called = lambda what: (
        attempt_in_thread() if what == "asked-1" else None,
        original(what),
    )[1]

    def attempt_in_thread() -> None:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    world.agent().resume("worker")
    assert len(errors) == 1
    assert str(os.getpid()) in str(errors[0])


def test_an_unknown_run_is_not_found(world: World, home: Path) -> None:
    world.agent()("t")
    with pytest.raises(crabrt.NotFound):
        world.agent().resume("nobody")


def test_a_changed_request_stops_with_a_readable_diff(ws: Path, killed, die, store) -> None:
    def agent(prompt: str, deadly: bool):
        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="changed")
        def run() -> None:
            think([{"role": "system", "content": prompt, "time": time.time()}])
            act()

        return run

    killed(lambda: agent("be brief", deadly=True)())
    agent_again = agent("be verbose", deadly=False)
    with pytest.raises(crabrt.Diverged) as caught:
        agent_again.resume("last")
    assert "be brief" in caught.value.diff
    assert "be verbose" in caught.value.diff
    assert caught.value.exit_code == 8
    # a timestamp in a message is not what a model sees, and no divergence:
    agent("be brief", deadly=False).resume("last")


def test_another_call_than_was_recorded_stops(ws: Path, killed, die) -> None:
    def agent(first: str, deadly: bool):
        @crabrt.tool
        def look() -> str:
            return "seen"

        @crabrt.tool
        def touch() -> str:
            if deadly:
                die()
            return "touched"

        @crabrt.agent(workspace=ws, name="other")
        def run() -> None:
            {"look": look, "touch": touch}[first]()
            touch()

        return run

    killed(lambda: agent("look", deadly=True)())
    with pytest.raises(crabrt.Diverged, match=r"calls 0:touch#0, where it called 0:look#0"):
        agent("touch", deadly=False).resume("last")


def test_a_rerun_with_another_result_goes_live_and_stays_so(ws: Path, killed, die, store) -> None:
    """A tool after the checkpoint runs again; what was recorded behind it never happened."""
    outside = ws.parent / "answer"
    outside.write_text("old")

    def agent(die_at: str | None):
        @crabrt.tool
        def ask_world() -> str:
            return outside.read_text()

        @crabrt.tool
        def act(what: str) -> str:
            (ws / what).write_text("x")
            if what == die_at:
                die()
            return what

        @crabrt.agent(workspace=ws, name="fickle")
        def run() -> list[str]:
            think([])
            seen = ask_world()
            return [act(f"do-{seen}-{i}") for i in range(3)]

        return run

    killed(lambda: agent("do-old-1")())
    outside.write_text("new")
    killed(lambda: agent("do-new-1").resume("last"))
    assert len(store.bodies(Superseded)) == 1
    assert agent(None).resume("last") == ["do-new-0", "do-new-1", "do-new-2"]
    assert sorted(p.name for p in ws.iterdir()) == ["do-new-0", "do-new-1", "do-new-2"]


def test_an_external_call_that_is_sealed_is_never_made_twice(ws: Path, killed, die) -> None:
    ledger = ws.parent / "ledger"

    def agent(deadly: bool):
        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            return "charged"

        @crabrt.tool
        def write(text: str) -> None:
            (ws / "a").write_text(text)
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="payer")
        def run() -> str:
            receipt = charge(5)
            write(receipt)
            return receipt

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == "charged"
    assert ledger.read_text() == "5\n"


def test_an_external_call_with_no_result_is_in_doubt_and_is_not_made(ws: Path, killed, die) -> None:
    ledger = ws.parent / "ledger"

    def agent(deadly: bool):
        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            if deadly:
                die()
            return "charged"

        @crabrt.agent(workspace=ws, name="doubtful")
        def run() -> str:
            return charge(5)

        return run

    killed(lambda: agent(deadly=True)())
    with pytest.raises(crabrt.InDoubt, match="may or may not have happened") as caught:
        agent(deadly=False).resume("last")
    assert caught.value.exit_code == 9
    assert ledger.read_text() == "5\n"


@pytest.mark.filterwarnings("ignore:.*what connect gave cannot be stored")
def test_a_result_that_cannot_be_stored_refuses_the_resume_with_the_reason(
    ws: Path, killed, die, store
) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def connect() -> object:
            return threading.Lock()

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="opaque")
        def run() -> None:
            connect()
            think([])
            act()

        return run

    killed(lambda: agent(deadly=True)())
    with pytest.raises(crabrt.NotResumable, match="lock"):
        agent(deadly=False).resume("last")


def test_arguments_that_cannot_be_stored_are_given_at_resume(ws: Path, killed, die) -> None:
    class Client:
        pass

    def agent(deadly: bool):
        @crabrt.tool
        def act() -> str:
            if deadly:
                die()
            return "acted"

        @crabrt.agent(workspace=ws, name="dependent")
        def run(client: Client, n: int) -> str:
            assert isinstance(client, Client)
            return act() + str(n)

        return run

    killed(lambda: agent(deadly=True)(Client(), 3))
    with pytest.raises(crabrt.NotResumable, match="Client"):
        agent(deadly=False).resume("last")
    assert agent(deadly=False).resume("last", client=Client(), n=3) == "acted3"


def test_exceptions_come_back_as_themselves_when_they_are_declared(ws: Path, killed, die) -> None:
    class Declared(Exception):
        pass

    class Undeclared(Exception):
        pass

    def agent(deadly: bool, seen: list):
        @crabrt.tool(raises=Declared)
        def first() -> None:
            raise Declared("one", 1)

        @crabrt.tool
        def second() -> None:
            raise Undeclared("two")

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="raiser")
        def run() -> None:
            for tool in (first, second):
                try:
                    tool()
                except Exception as error:
                    seen.append(error)
            think([])
            act()

        return run

    killed(lambda: agent(deadly=True, seen=[])())
    seen: list = []
    agent(deadly=False, seen=seen).resume("last")
    assert type(seen[0]) is Declared
    assert seen[0].args == ("one", 1)
    assert isinstance(seen[1], crabrt.ReplayedError)
    assert "two" in str(seen[1])


def test_streams_replay_their_pieces(ws: Path, killed, die) -> None:
    def agent(deadly: bool, asked: list):
        @crabrt.model
        def stream(messages: list[dict]):
            asked.append(1)
            yield from ("a", "b", "c")

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="streamer")
        def run() -> str:
            text = "".join(stream([{"role": "user", "content": "x"}]))
            act()
            return text

        return run

    killed(lambda: agent(deadly=True, asked=[])())
    asked: list = []
    assert agent(deadly=False, asked=asked).resume("last") == "abc"
    assert asked == []


def test_gathered_calls_replay_to_the_branch_that_made_them(ws: Path, killed, die) -> None:
    """Whichever branch is faster, each gets its own results: scopes are named by spawn order."""

    def agent(delays: dict[str, int], deadly: bool):
        @crabrt.tool
        async def fetch(who: str, n: int) -> str:
            for _ in range(delays[who]):
                await asyncio.sleep(0)
            return f"{who}{n}"

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        async def branch(who: str) -> list[str]:
            for _ in range(delays[who]):
                await asyncio.sleep(0)
            return [await fetch(who, n) for n in range(2)]

        @crabrt.agent(workspace=ws, name="gatherer")
        async def run() -> list[list[str]]:
            result = await asyncio.gather(branch("a"), branch("b"))
            act()
            return result

        return run

    killed(lambda: asyncio.run(agent({"a": 50, "b": 0}, deadly=True)()))
    result = asyncio.run(agent({"a": 0, "b": 50}, deadly=False).resume("last"))
    assert result == [["a0", "a1"], ["b0", "b1"]]


def test_calls_of_a_thread_pool_replay_whichever_thread_takes_them(
    ws: Path, killed, die, store
) -> None:
    counted = ws.parent / "counted"

    def agent(deadly: bool, order: int):
        @crabrt.tool
        def square(n: int) -> int:
            with counted.open("a") as file:
                file.write(".")
            return n * n

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="pooled")
        def run() -> list[int]:
            with ThreadPoolExecutor(3) as pool:
                result = list(pool.map(square, range(6)[::order]))
            think([])
            act()
            return sorted(result)

        return run

    killed(lambda: agent(deadly=True, order=1)())
    assert agent(deadly=False, order=-1).resume("last") == [0, 1, 4, 9, 16, 25]
    assert counted.read_text() == "." * 6
    assert {tool.name for turn in store.turns() for tool in turn.tools} == {"square", "act"}


def test_a_cancelled_call_replays_as_cancelled(ws: Path, killed, die) -> None:
    def agent(deadly: bool, ran: list):
        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="canceller")
        async def run() -> str:
            begun = asyncio.Event()

            @crabrt.tool
            async def slow() -> None:
                ran.append(1)
                begun.set()
                await asyncio.Event().wait()

            call, acts = asyncio.create_task(slow()), asyncio.create_task(begun.wait())
            # it acts, or is answered
            await asyncio.wait({call, acts}, return_when=asyncio.FIRST_COMPLETED)
            call.cancel()
            acts.cancel()
            await asyncio.wait({call, acts})
            think([])
            act()
            return "cancelled" if call.cancelled() else "done"

        return run

    killed(lambda: asyncio.run(agent(deadly=True, ran=[])()))
    ran: list = []
    assert asyncio.run(agent(deadly=False, ran=ran).resume("last")) == "cancelled"
    assert ran == []


@pytest.mark.parametrize("external", [False, True])
def test_a_call_that_is_cancelled_at_its_gate_replays_as_cancelled(
    ws: Path, store, killed, die, monkeypatch, external
) -> None:
    """It never acted, and a resume does not make it: what came after it rests on that."""
    ran, go_on, held = ws.parent / "ran", threading.Event(), threading.Event()

    def block() -> None:
        held.set()
        assert go_on.wait(30)

    def agent(deadly: bool):
        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.tool(effect="external" if external else "auto")
        async def slow() -> None:
            ran.touch()

        @crabrt.agent(workspace=ws, name="canceller")
        async def run() -> str:
            call = asyncio.create_task(slow())
            if deadly:
                await asyncio.to_thread(held.wait, 30)
                call.cancel()
            await asyncio.wait({call})
            go_on.set()
            for turn in range(2):
                think([{"role": "user", "content": str(turn)}])
                act() if turn else None
            return "cancelled" if call.cancelled() else "done"

        return run

    def first() -> None:
        monkeypatch.setattr(ALL["checkpoint.scanned"], "action", block)
        asyncio.run(agent(deadly=True)())

    killed(first)
    assert not ran.exists()
    assert asyncio.run(agent(deadly=False).resume("last")) == "cancelled"
    assert not ran.exists()
    assert {tool.name for turn in store.turns() for tool in turn.tools} == {"slow", "act"}


def test_recorded_values_and_rollbacks_replay(ws: Path, killed, die, store) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def write(text: str) -> str:
            (ws / "a").write_text(text)
            return text

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.agent(workspace=ws, name="roller")
        def run() -> tuple:
            for i in range(3):
                think([{"role": "user", "content": str(i)}])
                write(str(i))
            number = crabrt.current_run().rollback(to=1)
            token = crabrt.uuid4()
            think([{"role": "user", "content": str(token)}])
            act()
            return number, (ws / "a").read_text()

        return run

    killed(lambda: agent(deadly=True)())
    assert agent(deadly=False).resume("last") == (4, "0")


def test_a_child_run_that_was_killed_goes_on_where_it_was(ws: Path, killed, die, store) -> None:
    counted = ws.parent / "counted"

    def agents(die_at: int | None):
        @crabrt.tool
        def write(n: int) -> int:
            with counted.open("a") as file:
                file.write(str(n))
            (ws / f"c{n}").write_text("x")
            if n == die_at:
                die()
            return n

        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.agent(workspace=ws, name="helper")
        def helper() -> int:
            for n in range(4):
                think([{"role": "user", "content": str(n)}])
                write(n)
            return 4

        @crabrt.agent(workspace=ws, name="boss")
        def boss() -> int:
            think([{"role": "user", "content": "plan"}])
            n = helper()
            think([{"role": "user", "content": "after"}])
            write(9)
            return n

        return boss

    killed(lambda: agents(2)())
    assert agents(None).resume("boss") == 4
    assert sorted(p.name for p in ws.iterdir()) == ["c0", "c1", "c2", "c3", "c9"]
    assert counted.read_text() == "012239", "only the open call ran again"
    assert {run.status for run in store.runs()} == {"done"}


def test_what_the_loop_itself_writes_again_is_put_back_and_said(
    ws: Path, killed, die, store
) -> None:
    def agent(deadly: bool):
        @crabrt.tool
        def append() -> None:
            with (ws / "log").open("a") as file:
                file.write("tool\n")

        @crabrt.tool
        def act() -> None:
            if deadly:
                die()

        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.agent(workspace=ws, name="scribbler")
        def run() -> None:
            (ws / "log").write_text("loop\n")  # not wrapped: runs again on replay
            append()
            think([{"role": "user", "content": "x"}])
            act()

        return run

    killed(lambda: agent(deadly=True)())
    agent(deadly=False).resume("last")
    assert (ws / "log").read_text() == "loop\ntool\n"
    (note,) = [n for n in store.bodies(Noted) if n.topic == "loop-wrote"]
    assert note.paths == (b"log",)


def test_orphans_of_a_killed_loop_are_stopped_before_files_are_touched(
    ws: Path, killed, die, store
) -> None:
    pidfile = ws.parent / "pid"

    def agent(deadly: bool):
        @crabrt.tool
        def serve() -> None:
            if not deadly:
                return
            code = "import time\nwhile True: time.sleep(0.01)"
            process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            pidfile.write_text(str(process.pid))
            die()

        @crabrt.agent(workspace=ws, name="server")
        def run() -> None:
            serve()

        return run

    killed(lambda: agent(deadly=True)())
    pid = int(pidfile.read_text())
    assert Path(f"/proc/{pid}").exists()
    agent(deadly=False).resume("last")
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    (note,) = [n for n in store.bodies(Noted) if n.topic == "orphan"]
    assert str(pid) in note.text


def test_a_fork_of_the_process_inside_a_tool_leaves_the_run_alone(ws: Path, store) -> None:
    @crabrt.tool
    def forking() -> int:
        pid = os.fork()
        if pid == 0:
            inner = crabrt.current_run()
            os._exit(0 if not inner else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @crabrt.agent(workspace=ws, name="forker")
    def run() -> int:
        return forking()

    assert run() == 0
    assert store.run().status == "done"


def test_the_crab_resume_variable_attaches_the_same_call(
    world: World, killed, monkeypatch, store
) -> None:
    world.die_at = "asked-2"
    killed(lambda: world.agent()("t"))
    world.die_at = None
    run = store.run().run
    monkeypatch.setenv("CRAB_RESUME", run)
    world.agent()("t")
    assert [r.run for r in store.runs()] == [run]
    assert store.run().status == "done"
    assert len(store.bodies(Intent)) == 4


def _prompted(ws: Path, prompt: str, die_at: int | None, die, **options):
    @crabrt.model
    def ask(messages: list[dict]) -> str:
        return messages[-1]["content"]

    @crabrt.tool
    def write(n: int, text: str) -> None:
        (ws / f"f{n}").write_text(text)
        if n == die_at:
            die()

    @crabrt.agent(workspace=ws, name="prompted", **options)
    def run() -> None:
        for n in range(4):
            write(n, ask([{"role": "user", "content": prompt if n == 2 else "same"}]))

    return run


def test_on_divergence_a_branch_goes_on_from_the_turn_before(ws: Path, killed, die, store) -> None:
    killed(lambda: _prompted(ws, "old", 3, die)())
    parent = store.run().run
    entries = len(store.records(parent))
    _prompted(ws, "new", None, die, on_divergence="branch").resume(parent)
    assert {p.name: p.read_text() for p in ws.iterdir()} == {
        "f0": "same", "f1": "same", "f2": "new", "f3": "same",
    }  # fmt: skip
    (fork,) = [run for run in store.runs() if run.run != parent]
    assert (fork.parent, fork.family, fork.status) == (parent, parent, "done")
    assert [turn.evidence for turn in store.turns(fork.run)[3:]] == [
        ("files: f2 new",),
        ("files: f3 new",),
    ]
    added = {record.entry.kind for record in store.records(parent)[entries:]}
    assert added <= {"checkpoint", "resumed", "note"}, (
        "the parent keeps its history, and gets no calls"
    )


def test_a_branch_that_is_killed_resumes_as_itself(ws: Path, killed, die, store) -> None:
    killed(lambda: _prompted(ws, "old", 3, die)())
    parent = store.run().run
    killed(lambda: _prompted(ws, "new", 3, die, on_divergence="branch").resume(parent))
    (fork,) = [run.run for run in store.runs() if run.run != parent]
    _prompted(ws, "new", None, die).resume(fork)
    assert (ws / "f2").read_text() == "new"
    assert store.run(fork).status == "done"


def test_a_divergence_behind_tools_of_the_same_turn_cannot_branch(ws: Path, killed, die) -> None:
    def agent(second: str, deadly: bool):
        @crabrt.tool
        def act(what: str) -> None:
            (ws / what).write_text("x")

        @crabrt.tool
        def last() -> None:
            if deadly:
                die()

        @crabrt.agent(workspace=ws, name="midturn", on_divergence="branch")
        def run() -> None:
            act("first")
            act(second)
            think([])
            last()

        return run

    killed(lambda: agent("second", deadly=True)())
    with pytest.raises(crabrt.Diverged):
        agent("other", deadly=False).resume("last")
