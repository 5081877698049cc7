"""The store dies in the middle of a run: the loop goes on and is told; protection comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Ended, Exposed
from crabrt.core.failpoints import ALL
from crabrt.journal import Journal, RunIndex
from crabrt.operations.checking import check_everything
from crabrt.operations.naming import remove_run
from crabrt.operations.roots import collect_garbage
from crabrt.runtime import checkpoints
from crabrt.runtime.engine import Fate
from crabrt.store import Store


@crabrt.model
def think(messages: list[dict]) -> str:
    return "ok"


@crabrt.tool
def write(path: str, size: int) -> None:
    Path(path).write_bytes(bytes(range(256)) * (size // 256))


def ask(n: int) -> str:
    return think([{"role": "user", "content": str(n)}])


def test_a_store_that_is_removed_is_noticed_and_the_loop_goes_on(ws: Path, home: Path) -> None:
    @crabrt.agent(workspace=ws, name="removed")
    def run() -> str:
        for n in range(5):
            ask(n)
            write(str(ws / f"{n}"), 1024)
            if n == 1:
                shutil.rmtree(home)
        return "done"

    with pytest.warns(crabrt.UnprotectedWarning):
        assert run() == "done"


@pytest.mark.root
def test_protection_comes_back_by_itself_when_there_is_room_again(
    ws: Path, tmp_path: Path, home: Path, store
) -> None:
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "crabrt", str(home)], check=True)
    try:
        ballast = home / "ballast"

        @crabrt.agent(workspace=ws, name="full")
        def run() -> str:
            for n in range(8):
                ask(n)
                write(str(ws / f"{n}"), 1024)
                (ws / f"noise{n}").write_bytes(os.urandom(100_000))
                if n == 2:
                    fill(ballast)
                if n == 4:
                    ballast.unlink()
            return "done"

        with pytest.warns(crabrt.UnprotectedWarning):
            assert run() == "done"
        lost = {body.turn for body in store.bodies(Exposed)}
        turns = {turn.turn: turn.protection for turn in store.turns()}
        assert lost
        assert set(lost) <= {2, 3, 4, 5}
        assert turns[1] == turns[7] == turns[8] == "durable"
    finally:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.root
def test_an_external_call_that_a_full_store_stopped_is_made_when_there_is_room(
    ws: Path, home: Path, store
) -> None:
    """The last checkpoint finds room again: it must not bury what never happened."""
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "crabrt", str(home)], check=True)
    home.chmod(0o700)
    try:
        ballast, filled, sent = home / "ballast", threading.Event(), ws.parent / "sent"
        letter = os.urandom(100_000).hex()  # its record is in the store, not in the journal

        @crabrt.tool(effect="external")
        def send(n: int, letter: str) -> str:
            with sent.open("a") as file:
                file.write(f"{n} ")
            return "sent"

        @crabrt.agent(workspace=ws, name="sender")
        def run() -> str:
            for n in range(4):
                ask(n)
                write(str(ws / f"{n}"), 1024)
            (ws / "noise").write_bytes(os.urandom(100_000))
            if not filled.is_set():
                filled.set()
                fill(ballast)
            try:
                return send(1, letter)
            finally:
                ballast.unlink(missing_ok=True)

        with pytest.raises(crabrt.NotDurable):
            run()
        assert store.turns()[-1].restorable, "the end found no room: nothing is proved"
        assert not sent.exists()
        with Store.open(home) as opened:
            assert check_everything(opened, read_data=True).troubles == ()
        assert run.resume("last") == "sent"
        assert sent.read_text() == "1 "
    finally:
        subprocess.run(["umount", str(home)], check=True)


def fill(path: Path) -> None:
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"\xff" * 4096)
    except OSError:
        pass


def test_strict_stops_at_the_gate_that_was_passed_too_late(
    ws: Path, home: Path, monkeypatch
) -> None:
    go_on = threading.Event()

    @crabrt.agent(workspace=ws, name="late", strict=True, baseline_gate_limit_ms=50)
    def run() -> None:
        try:
            write(str(ws / "a"), 256)
        finally:
            go_on.set()

    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", lambda: go_on.wait(30))
    with pytest.raises(crabrt.Unprotected, match="50 ms"):
        run()
    assert not (ws / "a").exists()


def test_what_a_gate_gave_up_on_is_not_collected_while_the_run_relies_on_it(
    ws: Path, home: Path, monkeypatch
) -> None:
    """The baseline comes too late, so no entry names it; what it found in the store must stay."""
    for number in range(40):
        (ws / f"f{number}").write_bytes(os.urandom(3000))
    with crabrt.open_run(workspace=ws, name="old") as run:
        run.tool_call("write", {}, lambda: (ws / "f0").write_text("one"))
    with RunIndex.open(home) as index:
        index.refresh()
        remove_run(home, index.find("old").run)
    for saved in (home / "workspaces").rglob("index*"):
        saved.unlink()
    make, collected = checkpoints.make, []

    def make_and_collect(session, job, *more) -> None:
        if not collected:
            job.settle(Fate.TOO_LATE)
        make(session, job, *more)
        if not collected:
            with Store.open(home) as store:
                collected.extend(collect_garbage(store) for _ in range(2))

    monkeypatch.setattr(checkpoints, "make", make_and_collect)
    with crabrt.open_run(workspace=ws, name="new") as run:
        for name in ("f0", "f1"):
            run.model_call([{"role": "user", "content": name}], lambda: "ok")
            run.tool_call("write", {}, lambda name=name: (ws / name).write_text("two"))
    with Store.open(home) as store:
        assert check_everything(store, read_data=True).troubles == ()


def test_an_agent_for_another_directory_on_a_plain_thread_is_a_run_of_its_own(
    tmp_path: Path, home: Path, store
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    @crabrt.agent(workspace=tmp_path / "two", name="two")
    def two() -> None:
        crabrt.current_run().tool_call("t", {}, lambda: (tmp_path / "two" / "a").write_text("x"))

    @crabrt.agent(workspace=tmp_path / "one", name="one")
    def one() -> None:
        thread = threading.Thread(target=two)
        thread.start()
        thread.join()

    one()
    runs = {run.name: run for run in store.runs()}
    assert runs["two"].parent is None
    assert runs["two"].workspace.endswith(b"two")
    assert store.turns("two")[1].files_added == 1


def test_a_child_whose_directory_is_elsewhere_is_said_to_be_unprotected(
    tmp_path: Path, home: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    @crabrt.agent(workspace=tmp_path / "two", name="two")
    def two() -> None:
        write(str(tmp_path / "two" / "a"), 256)

    @crabrt.agent(workspace=tmp_path / "one", name="one")
    def one() -> None:
        two()

    with pytest.warns(crabrt.UnprotectedWarning, match="not protected"):
        one()


def test_calls_through_a_runs_handle_are_that_runs(tmp_path: Path, store) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        crabrt.open_run(workspace=tmp_path / "one", name="one") as outer,
        crabrt.open_run(workspace=tmp_path / "two", name="two") as inner,
    ):
        outer.tool_call("mine", {}, lambda: 1)
        inner.tool_call("his", {}, lambda: 1)
    assert [tool.name for turn in store.turns("one") for tool in turn.tools] == ["mine"]
    assert [tool.name for turn in store.turns("two") for tool in turn.tools] == ["his"]


def test_a_full_disk_does_not_stop_an_agent_inside_an_agent(ws: Path, store, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise crabrt.StoreUnavailable("no space left")

    @crabrt.agent(workspace=ws, name="helper")
    def helper() -> str:
        write(str(ws / "a"), 256)
        return "helped"

    @crabrt.agent(workspace=ws, name="boss")
    def boss() -> str:
        monkeypatch.setattr("crabrt.runtime.opening.Lease.acquire", full)
        return helper()

    with pytest.warns(crabrt.UnprotectedWarning, match="space"):
        assert boss() == "helped"
    assert [tool.name for turn in store.turns("boss") for tool in turn.tools] == ["helper", "write"]


@pytest.mark.root
def test_a_run_that_ends_on_a_full_disk_is_not_taken_for_a_crashed_one(
    ws: Path, home: Path, store
) -> None:
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "crabrt", str(home)], check=True)
    try:
        ballast, full = home / "ballast", threading.Event()

        @crabrt.agent(workspace=ws, name="full")
        def run() -> str:
            ask(0)
            if not full.is_set():
                full.set()
                fill(ballast)
            for n in range(100):  # until the last page that the journal has is full, too
                ask(n)
            return "done"

        with pytest.warns(crabrt.UnprotectedWarning):
            assert run() == "done"
        assert not store.bodies(Ended), "the disk took the end: nothing is proved"
        ballast.unlink()
        assert store.run().status == "ended"
        assert run.resume("last") == "done"
        assert store.run().status == "done"
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_an_end_that_finds_no_room_for_its_result_is_written_without_it(
    ws: Path, home: Path, store, monkeypatch
) -> None:
    append = Journal.append

    def full(journal, body, **kwargs):
        if isinstance(body, Ended) and body.result.missing is None:
            raise crabrt.StoreUnavailable("no room")
        return append(journal, body, **kwargs)

    @crabrt.agent(workspace=ws, name="tight")
    def run() -> str:
        ask(0)
        return "x" * 200

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", full)
        with pytest.warns(crabrt.UnprotectedWarning):
            run()
    assert store.run().status == "done"
    assert run.resume("last") == "x" * 200
