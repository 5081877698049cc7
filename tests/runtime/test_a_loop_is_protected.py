"""A wrapped loop, end to end in this process: turns, verdicts, what the journal says of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Checkpoint, Ended, Gated, Intent, Request, Response, Result
from crabrt.core.verdicts import Prior, Protection
from crabrt.inspector.watch import Unwatchable
from crabrt.testing.filesystems import file_system


@crabrt.tool
def write(path: str, text: str) -> int:
    return Path(path).write_text(text)


@crabrt.tool
def read(path: str) -> str:
    return Path(path).read_text()


@crabrt.model
def think(messages: list[dict]) -> dict:
    return {"role": "assistant", "content": str(len(messages))}


def loop(ws: Path, steps: list):
    """An agent that asks the model before each step."""

    @crabrt.agent(workspace=ws, name="looper")
    def run(task: str) -> int:
        messages = [{"role": "user", "content": task}]
        for step in steps:
            messages.append(think(messages))
            messages.append({"role": "user", "content": str(step())})
        return len(messages)

    return run


def test_outside_of_a_run_tools_and_models_are_plain_functions(ws: Path, home: Path) -> None:
    assert write(str(ws / "a"), "x") == 1
    assert think([])["content"] == "0"
    assert not crabrt.current_run()
    assert not home.exists()


def test_each_turn_gets_the_verdict_of_what_it_did(ws: Path, store) -> None:
    a = str(ws / "a.txt")
    result = loop(ws, [lambda: write(a, "one"), lambda: read(a), lambda: write(a, "two")])("go")
    assert result == 7
    assert [turn.verdict_names for turn in store.turns()[1:]] == [["files"], ["none"], ["files"]]
    evidence = [turn.evidence for turn in store.turns()[1:]]
    assert evidence == [("files: a.txt new",), (), ("files: a.txt content",)]
    assert store.run().status == "done"


def test_evidence_counts_the_files_that_the_verdict_counts(ws: Path, store) -> None:
    def build() -> None:
        for name in ("build/a", "build/b"):
            (ws / name).mkdir(parents=True)
            for n in range(3):
                (ws / name / f"{n}.o").write_text("x")

    loop(ws, [build, lambda: (ws / "empty").mkdir()])("go")
    built, empty = store.turns()[1:]
    assert (built.evidence, built.files_added) == (("files: build/ 6 new, 3 directories new",), 6)
    assert (empty.evidence, empty.files_added) == (("files: empty/ new",), 0)


def test_a_rewrite_with_the_same_bytes_and_times_is_no_change(ws: Path, store) -> None:
    a = ws / "a.txt"
    a.write_text("same")
    os.utime(a, ns=(1, 10**18))

    def again() -> None:
        a.unlink()
        a.write_text("same")
        os.utime(a, ns=(1, 10**18))

    touch = crabrt.tool(again)
    loop(ws, [touch, lambda: read(str(a))])("go")
    assert [turn.verdict_names for turn in store.turns()[1:]] == [["none"], ["none"]]


def test_every_turn_is_durable_or_inherited_and_its_gate_is_measured(ws: Path, store) -> None:
    a = str(ws / "a.txt")
    loop(ws, [lambda: write(a, "1"), lambda: read(a), lambda: write(a, "2")])("go")
    found = {(c.turn, c.inner): c.protection for c in store.bodies(Checkpoint)}
    durable, inherited = Protection.DURABLE, Protection.INHERITED
    assert found == {(0, 0): durable, (1, 0): durable, (2, 0): inherited, (3, 0): durable}
    assert [gate.turn for gate in store.bodies(Gated)] == [0, 1, 2]


def test_a_request_stores_only_the_messages_it_adds(ws: Path, store) -> None:
    loop(ws, [lambda: None] * 30)("x" * 5000)
    requests = store.bodies(Request)
    assert [request.messages.size for request in requests] == list(range(1, 60, 2))
    packs = sum(p.stat().st_size for p in (store.home / "packs").rglob("*.pack"))
    assert packs < 60_000, "thirty requests of one growing conversation"


def test_helper_model_calls_do_not_open_turns(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="helped")
    def run() -> None:
        think([{"role": "user", "content": "plan"}])
        for i in range(3):
            write(str(ws / "f"), str(i))
            think([{"role": "user", "content": f"plan {i}"}])
            think([{"role": "user", "content": f"judge {i}"}])

    run()
    assert [len(turn.models) for turn in store.turns()[1:]] == [1, 2, 2, 2]


def test_a_run_without_wrapped_tools_is_gated_and_captured_at_the_reply(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="bare")
    def run() -> None:
        for i in range(3):
            think([{"role": "user", "content": str(i)}])
            (ws / f"{i}.txt").write_text("by the loop itself")

    run()
    assert [turn.evidence for turn in store.turns()[1:]] == [
        ("files: 0.txt new",),
        ("files: 1.txt new",),
        ("files: 2.txt new",),
    ]
    assert {gate.turn for gate in store.bodies(Gated)} == {0, 1, 2}


def test_an_exception_of_a_tool_reaches_the_loop_and_is_sealed(ws: Path, store) -> None:
    seen = []

    def step() -> str:
        try:
            return read(str(ws / "missing"))
        except FileNotFoundError as error:
            seen.append(error)
            return "no"

    loop(ws, [step])("go")
    assert len(seen) == 1
    (result,) = store.bodies(Result)
    assert result.failure.tag == "FileNotFoundError"


def test_a_loop_that_raises_is_recorded_as_failed_and_its_files_are_kept(ws: Path, store) -> None:
    def burst() -> None:
        write(str(ws / "a"), "kept")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        loop(ws, [burst])("go")
    (ended,) = store.bodies(Ended)
    assert (ended.status, ended.failure.tag) == ("failed", "ValueError")
    assert store.turns()[1].evidence == ("files: a new",)


def test_declared_external_tools_are_durable_before_and_after_they_act(ws: Path, store) -> None:
    order = []

    @crabrt.tool(effect="external", idempotency_key=lambda amount: f"k{amount}")
    def charge(amount: int) -> str:
        order.append(store.kinds())
        return "charged"

    a = str(ws / "a")
    loop(ws, [lambda: (write(a, "1"), charge(5))])("go")
    (intent,) = [i for i in store.bodies(Intent) if i.call.name == "charge"]
    assert intent.prior is Prior.EXTERNAL
    assert intent.external.idempotency_key == "k5"
    kinds = order[0]
    assert kinds[-1] == "intent"
    checkpoints = [(c.turn, c.inner) for c in store.bodies(Checkpoint)]
    assert checkpoints == [(0, 0), (1, 1), (1, 2), (1, 0)]
    assert kinds.count("checkpoint") == 2, "what the turn had done was durable before it acted"
    assert store.turns()[1].verdict_names == ["files", "external"]


def test_unknown_words_of_effects_are_refused_with_the_choices() -> None:
    with pytest.raises(crabrt.UsageError, match=r"effect='extrenal' is not known.*external"):
        crabrt.tool(effect="extrenal")(lambda: None)


async def test_async_agents_tools_and_models_work_the_same(ws: Path, store) -> None:
    @crabrt.tool
    async def awrite(path: str, text: str) -> int:
        return await asyncio.to_thread(Path(path).write_text, text)

    @crabrt.model
    async def athink(messages: list[dict]) -> str:
        await asyncio.sleep(0)
        return "ok"

    @crabrt.agent(workspace=ws, name="async")
    async def run(n: int) -> int:
        for i in range(n):
            await athink([{"role": "user", "content": str(i)}])
            await asyncio.gather(awrite(str(ws / f"{i}a"), "a"), awrite(str(ws / f"{i}b"), "b"))
        return n

    assert await run(3) == 3
    assert [turn.verdict_names for turn in store.turns()[1:]] == [["files"]] * 3
    assert [len(turn.tools) for turn in store.turns()[1:]] == [2, 2, 2]


def test_streaming_replies_flow_through_piece_by_piece_and_are_sealed_whole(
    ws: Path, store
) -> None:
    produced, received = [], []

    @crabrt.model
    def stream(messages: list[dict]):
        for word in ("a", "b", "c"):
            produced.append(word)
            yield word

    @crabrt.agent(workspace=ws, name="streamer")
    def run() -> str:
        received.extend((w, len(produced)) for w in stream([{"role": "user", "content": "x"}]))
        return "".join(word for word, _ in received)

    assert run() == "abc"
    assert received == [("a", 1), ("b", 2), ("c", 3)], "each piece came when it was produced"
    (response,) = store.bodies(Response)
    assert response.streamed


def test_a_client_stream_object_keeps_its_own_attributes(ws: Path, store) -> None:
    class ClientStream:
        def __init__(self) -> None:
            self.headers = {"x": "1"}
            self._items = iter([1, 2])

        def __iter__(self):
            return self

        def __next__(self):
            return next(self._items)

    @crabrt.model
    def stream(messages: list[dict]):
        return ClientStream()

    @crabrt.agent(workspace=ws, name="client")
    def run() -> list[int]:
        reply = stream([])
        assert reply.headers == {"x": "1"}
        return list(reply)

    assert run() == [1, 2]
    assert store.bodies(Response)[0].streamed


def test_tools_on_worker_threads_belong_to_the_one_live_run(ws: Path, store) -> None:
    def parallel() -> int:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda i: write(str(ws / f"{i}"), "x"), range(8)))

    assert loop(ws, [parallel])("go") == 3
    (turn,) = store.turns()[1:]
    assert len(turn.tools) == 8
    assert turn.files_added == 8


def test_without_a_context_several_live_runs_are_an_error_that_says_what_to_do(
    tmp_path: Path, home: Path
) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(2)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def lost() -> None:
        try:
            write(str(tmp_path / "x"), "")
        except crabrt.NoCurrentRun as error:
            failures.append(error)

    def start(name: str) -> None:
        @crabrt.agent(workspace=tmp_path / name, name=name)
        def run() -> None:
            barrier.wait(timeout=30)
            worker = threading.Thread(target=lost)
            worker.start()
            worker.join()
            barrier.wait(timeout=30)

        run()

    threads = [threading.Thread(target=start, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 2
    assert "copy_context" in str(failures[0])


def test_an_agent_inside_an_agent_is_a_child_run_and_one_call_to_its_parent(
    ws: Path, store
) -> None:
    @crabrt.agent(workspace=ws, name="helper")
    def helper(n: int) -> str:
        for i in range(n):
            think([{"role": "user", "content": str(i)}])
            write(str(ws / f"child{i}"), "x")
        return "helped"

    @crabrt.agent(workspace=ws, name="boss")
    def boss() -> str:
        think([{"role": "user", "content": "plan"}])
        answer = helper(2)
        think([{"role": "user", "content": "wrap up"}])
        write(str(ws / "own"), "y")
        return answer

    assert boss() == "helped"
    runs = {run.name: run for run in store.runs()}
    assert runs["helper"].parent == runs["boss"].run
    assert runs["helper"].family == runs["boss"].run
    own = store.turns("boss")
    assert [tool.name for tool in own[1].tools] == ["helper"]
    assert set(own[1].evidence) == {"files: child0 new, child1 new"}
    assert len(store.turns("helper")) == 3


def test_labels_and_checkpoints_made_by_the_loop_are_targets(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="labeller")
    def run() -> str:
        think([{"role": "user", "content": "x"}])
        write(str(ws / "a"), "1")
        target = crabrt.current_run().checkpoint(label="before-the-risky-part")
        write(str(ws / "a"), "2")
        return target

    target = run()
    assert target.endswith("@1.1")
    assert store.run().labels == {"before-the-risky-part": (1, 1)}


def test_a_rollback_puts_the_files_back_and_the_next_turn_says_so(ws: Path, store) -> None:
    a = ws / "a"

    @crabrt.agent(workspace=ws, name="roller")
    def run() -> int:
        for i in range(4):
            think([{"role": "user", "content": str(i)}])
            write(str(a), str(i))
        number = crabrt.current_run().rollback(to=2)
        assert a.read_text() == "1"
        think([{"role": "user", "content": "again"}])
        write(str(a), "other")
        return number

    assert run() == 5
    assert a.read_text() == "other"
    assert store.turns()[5].base == 2


def test_open_run_records_calls_without_decorators(ws: Path, store) -> None:
    with crabrt.open_run(workspace=ws, name="block") as run:
        reply = run.model_call([{"role": "user", "content": "x"}], lambda messages: "hello")
        out = run.tool_call("sh", {"command": "make"}, lambda command: command.upper())
        with run.tool_call("sh", {"command": "ls"}) as call:
            assert not call.sealed
            listed = call.value if call.sealed else call.result("files")
        assert run.turn == 1
    assert (reply, out, listed) == ("hello", "MAKE", "files")
    assert [tool.name for tool in store.turns()[1].tools] == ["sh", "sh"]


async def test_open_run_works_in_async_code_too(ws: Path, store) -> None:
    async def ask(messages):
        await asyncio.sleep(0)
        return "hello"

    async with crabrt.open_run(workspace=ws, name="ablock") as run:
        assert await run.model_call([{"role": "user", "content": "x"}], ask) == "hello"
    assert store.run().status == "done"


def test_a_block_that_forgets_its_result_is_told(ws: Path, home: Path) -> None:
    with crabrt.open_run(workspace=ws, name="forgetful") as run:
        block = run.tool_call("sh", {})
        block.__enter__()
        with pytest.raises(crabrt.UsageError, match=r"call\.result"):
            block.__exit__(None, None, None)


def test_disable_makes_everything_plain(ws: Path, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_DISABLE", "1")
    loop(ws, [lambda: write(str(ws / "a"), "x")])("go")
    assert not home.exists()


def test_a_store_that_cannot_be_made_warns_and_the_loop_goes_on(
    ws: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "file" / "home"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert loop(ws, [lambda: write(str(ws / "a"), "x")])("go") == 3
    assert [w.category for w in caught] == [crabrt.UnprotectedWarning]
    assert caught[0].filename == __file__  # not a line of the package
    assert (ws / "a").read_text() == "x"


def test_strict_refuses_to_run_without_a_store(ws: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("CRAB_STRICT", "1")
    with pytest.raises(crabrt.StoreUnavailable):
        loop(ws, [])("go")


def test_the_home_directory_is_refused_unless_forced(home: Path, monkeypatch, ws: Path) -> None:
    monkeypatch.setenv("HOME", str(ws))
    with pytest.raises(crabrt.WorkspaceRefused, match="home"):
        loop(ws, [])("go")


def test_two_families_in_one_workspace_are_refused(ws: Path, home: Path) -> None:
    with crabrt.open_run(workspace=ws, name="first"):
        program = f"import crabrt\nwith crabrt.open_run(workspace={str(ws)!r}): pass"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
    assert "WorkspaceBusy" in done.stderr
    assert "first" in done.stderr
    assert "shared=True" in done.stderr


def test_a_run_names_what_it_starts_in_the_environment(ws: Path, store) -> None:
    seen = []
    loop(ws, [lambda: seen.append(os.environ.get("CRAB_RUN"))])("go")
    assert seen == [store.run().run]
    assert "CRAB_RUN" not in os.environ


def test_recorded_values_are_journalled_once(ws: Path, store) -> None:
    @crabrt.agent(workspace=ws, name="clocked")
    def run() -> tuple:
        return (crabrt.now(), crabrt.uuid4(), crabrt.random(), crabrt.recorded(lambda: {"a": 1}))

    values = run()
    assert values[3] == {"a": 1}
    assert store.kinds().count("recorded") == 4


def test_keys_among_the_arguments_are_neither_stored_nor_compared(ws: Path, store) -> None:
    @crabrt.model
    def ask(messages: list[dict], api_key: str, extra_headers: dict) -> str:
        return "ok"

    @crabrt.agent(workspace=ws, name="keyed")
    def run() -> None:
        ask([{"role": "user", "content": "x"}], "sk-very-secret", {"Authorization": "Bearer abc"})

    run()
    (request,) = store.bodies(Request)
    assert b"secret" not in request.arguments.inline
    assert b"Bearer" not in request.arguments.inline
    for path in store.home.rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes()


@pytest.mark.root
def test_a_run_says_who_observed_each_turn(ws: Path, home: Path, store, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_OBSERVER", "fanotify")
    monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")

    @crabrt.tool
    def write(name: str) -> None:
        (ws / name).write_text(name)

    @crabrt.agent(workspace=ws, name="watched")
    def run() -> None:
        for name in ("a", "b"):
            think([{"role": "user", "content": name}])
            write(name)

    run()
    assert [turn.files_added for turn in store.turns()[1:]] == [1, 1]
    assert [turn.observer for turn in store.turns()[1:]] == ["fanotify", "fanotify"]
    checkpoints = store.bodies(Checkpoint)
    assert checkpoints[0].observer == "scan (the first look)"
    assert {one.observer for one in checkpoints[1:]} == {"fanotify"}


@pytest.mark.root
def test_an_observer_that_cannot_be_had_is_refused(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_OBSERVER", "fanotify")
    with file_system("overlay") as base, pytest.raises(Unwatchable, match="overlay"):
        loop(base, [])("go")


def test_a_run_that_begins_over_the_cap_sees_to_it_beside_the_loop(ws: Path, store) -> None:
    @crabrt.tool
    def noise(name: str) -> None:
        (ws / name).write_bytes(os.urandom(200_000))

    @crabrt.agent(workspace=ws, name="noisy", size_cap_bytes=500_000)
    def run() -> None:
        for i in range(6):
            think([{"role": "user", "content": str(i)}])
            noise("f")

    run()
    first = store.run().run
    assert not any(turn.thinned_ns for turn in store.turns(first))

    @crabrt.agent(workspace=ws, name="next", size_cap_bytes=500_000)
    def wait() -> None:
        think([{"role": "user", "content": "x"}])
        for _ in range(1_000):
            if any(turn.thinned_ns for turn in store.turns(first)):
                return
            threading.Event().wait(0.02)

    wait()
    assert [bool(turn.thinned_ns) for turn in store.turns(first)] == [
        False, True, True, True, True, True, False,
    ]  # fmt: skip


def test_what_a_shell_gives_comes_back_from_a_tool_without_annotations(ws, home) -> None:
    said: list[str] = []

    @crabrt.tool
    def sh(shell, command):  # as people write it
        said.append(command)
        return shell.run(command)

    @crabrt.agent(workspace=ws, name="shelled")
    def run() -> tuple[str, int]:
        with crabrt.Shell(isolation="session") as shell:
            result = sh(shell, "echo here; (exit 3)")
        if len(said) == 1 and not (ws / "mended").exists():
            (ws / "mended").touch()
            raise RuntimeError("a bug of the loop's own")
        return result.output, result.exit_status

    with pytest.raises(RuntimeError):
        run()
    assert run.resume("last") == ("here\n", 3)
    assert said == ["echo here; (exit 3)"]
