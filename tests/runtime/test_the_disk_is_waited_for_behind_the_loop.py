"""A turn is captured while an earlier one waits for the disk; what the disk loses is known."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Captured, Checkpoint, Exposed
from crabrt.core.failpoints import ALL
from crabrt.operations.checking import check_everything
from crabrt.runtime.committing import QUEUE_MOST
from crabrt.store import Store
from crabrt.testing.oracle import digest
from crabrt.workspace import restore_to


@pytest.fixture
def disk(monkeypatch) -> Iterator[threading.Event]:
    """Set, the disk answers; clear it, and who synced packs waits."""
    answers = threading.Event()
    answers.set()
    monkeypatch.setattr(ALL["checkpoint.synced"], "action", lambda: answers.wait(60))
    yield answers
    answers.set()


def order(store) -> list[tuple[str, int]]:
    kinds = (Captured, Checkpoint)
    bodies = [record.body for record in store.records() if isinstance(record.body, kinds)]
    return [(body.kind, body.turn) for body in bodies]


def begun(run: crabrt.Run) -> None:
    """Wait until turn 0 is durable."""
    job = run._session._job
    assert job is not None
    job.durable.result(60)


def history(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(turn)} for turn in range(1, number + 1)]


def step(run: crabrt.Run, ws: Path, number: int) -> None:
    run.model_call(history(number), lambda: "ok")
    run.tool_call("write", {}, lambda: (ws / f"{number}").write_bytes(os.urandom(3000)))


def steps(run: crabrt.Run, ws: Path, count: int) -> None:
    for number in range(1, count + 1):
        step(run, ws, number)


def test_turns_are_captured_while_the_disk_is_waited_for(ws: Path, store, disk) -> None:
    states = {}
    with crabrt.open_run(workspace=ws, name="slow") as run:
        begun(run)
        step(run, ws, 1)
        disk.clear()
        for number in (2, 3, 4):
            states[number - 1] = digest(ws)
            step(run, ws, number)
        states[4] = digest(ws)
        meanwhile, turns = order(store), store.turns()
        disk.set()
    assert meanwhile[2:] == [("captured", 1), ("captured", 2), ("captured", 3)]
    assert [turn.protection for turn in turns[1:4]] == ["captured"] * 3
    assert [kind for kind in order(store) if kind[0] == "checkpoint"] == [
        ("checkpoint", number) for number in range(5)
    ]
    assert [turn.protection for turn in store.turns()] == ["durable"] * 5
    assert not store.bodies(Exposed)
    _every_turn_comes_back(store, states, ws.parent)


def _every_turn_comes_back(store, states: dict[int, str], scratch: Path) -> None:
    with Store.open(store.home) as objects:
        assert check_everything(objects, read_data=True).troubles == ()
        for turn in store.turns():
            if turn.turn in states:
                target = scratch / f"turn {turn.turn}"
                target.parent.mkdir(exist_ok=True)
                restore_to(objects, turn.root, target)
                assert digest(target) == states[turn.turn]


def test_the_newest_state_stays_the_newest_when_an_older_one_becomes_durable(
    ws: Path, store, disk, monkeypatch
) -> None:
    """Its `checkpoint` stands behind the `captured` of a later turn."""
    newest: list[tuple[int, int]] = []

    def look() -> None:
        view = store.run().view
        newest.append((view.root_turn, view.restorable))

    with crabrt.open_run(workspace=ws, name="slow") as run:
        begun(run)
        step(run, ws, 1)
        monkeypatch.setattr(ALL["checkpoint.durable"], "action", look)
        disk.clear()
        for number in (2, 3, 4):
            step(run, ws, number)
        disk.set()
    assert newest[0] >= (3, 3), "turn 1 became durable"


def test_killed_between_two_captures_and_the_disk_both_turns_are_there(
    ws: Path, store, killed, die
) -> None:
    states: dict[int, str] = {}

    def body() -> None:
        ALL["checkpoint.synced"].action = lambda: blocked.wait(60)
        with crabrt.open_run(workspace=ws, name="dies") as run:
            step(run, ws, 1)
            step(run, ws, 2)
            step(run, ws, 3)
            die()

    blocked = threading.Event()
    killed(body)
    assert order(store) == [("captured", 0), ("captured", 1), ("captured", 2)]
    with crabrt.open_run(workspace=ws, name="dies", resume="dies") as run:
        for number in (1, 2, 3):
            step(run, ws, number)
    states[3] = digest(ws)
    assert {turn.protection for turn in store.turns()} <= {"durable", "inherited"}
    _every_turn_comes_back(store, states, ws.parent)


def test_what_rests_on_a_failed_sync_fails_too_and_the_next_turn_is_whole(
    ws: Path, store, monkeypatch
) -> None:
    """The second turn changes nothing of what the first one stored, and relies on it."""
    real, failing = os.fdatasync, threading.Event()
    fail_now = threading.Event()

    def fdatasync(fd: int) -> None:
        if failing.is_set() and os.readlink(f"/proc/self/fd/{fd}").endswith(".pack"):
            fail_now.wait(60)
            failing.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with crabrt.open_run(workspace=ws, name="eio") as run:
        begun(run)
        step(run, ws, 1)
        failing.set()
        step(run, ws, 2)
        step(run, ws, 3)
        meanwhile = order(store)
        fail_now.set()
        while len(store.bodies(Exposed)) < 2:
            os.sched_yield()
        with pytest.warns(crabrt.UnprotectedWarning):
            step(run, ws, 4)
        state = digest(ws)
    assert ("captured", 2) in meanwhile
    turns = {turn.turn: turn.protection for turn in store.turns()}
    assert turns[1] == turns[2] == "unprotected"
    assert turns[3] == turns[4] == "durable"
    _every_turn_comes_back(store, {4: state}, ws.parent)


def test_what_another_thread_lost_is_no_part_of_a_durable_turn(
    ws: Path, store, monkeypatch
) -> None:
    """A turn waits to be durable while the next capture fails to sync the pack that it lies in."""
    real, failing = os.fdatasync, threading.Event()
    answers = threading.Event()
    answers.set()

    def fdatasync(fd: int) -> None:
        pack = os.readlink(f"/proc/self/fd/{fd}").endswith(".pack")
        if pack and threading.current_thread().name.startswith("crabrt-engine"):
            failing.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setitem(Store.writer.__kwdefaults__, "pack_bytes", 64 << 10)
    states = {}
    with crabrt.open_run(workspace=ws, name="eio") as run:
        begun(run)
        holds = threading.Event()
        monkeypatch.setattr(
            ALL["checkpoint.durable"], "action", lambda: holds.set() or answers.wait(60)
        )
        answers.clear()
        step(run, ws, 1)
        step(run, ws, 2)
        assert holds.wait(60)  # turn 1 is durable, and holds the stage
        step(run, ws, 3)  # turn 2 waits behind it
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        (ws / "large").write_bytes(os.urandom(1 << 20))
        run.model_call(history(4), lambda: failing.wait(60) and "ok")
        monkeypatch.setattr(os, "fdatasync", real)
        answers.set()
        with pytest.warns(crabrt.UnprotectedWarning):
            steps(run, ws, 6)
        states[store.run().turns] = digest(ws)
    assert failing.is_set(), "nothing was lost"
    durable = [turn for turn in store.turns() if turn.protection in ("durable", "inherited")]
    assert [turn.turn for turn in durable] == [0, 1, *range(4, store.run().turns + 1)]
    with Store.open(store.home) as objects:
        for turn in durable:
            restore_to(objects, turn.root, ws.parent / f"turn {turn.turn}")
    _every_turn_comes_back(store, states, ws.parent / "again")


def test_a_failure_of_each_stage_costs_the_turn_that_it_hits(ws: Path, store, monkeypatch) -> None:
    """A stage that has heard of one failure does not take the other's for news of its own."""
    sync, write = os.fdatasync, os.pwrite
    failing: set[str] = set()

    def fails(fd: int) -> bool:
        if not os.readlink(f"/proc/self/fd/{fd}").endswith(".pack"):
            return False
        stage = threading.current_thread().name.rpartition("_")[0]
        found = stage in failing
        failing.discard(stage)
        return found

    def fdatasync(fd: int) -> None:
        if fails(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if fails(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(fd, data, offset)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with crabrt.open_run(workspace=ws, name="eio") as run, warnings.catch_warnings():
        warnings.simplefilter("ignore", crabrt.UnprotectedWarning)
        begun(run)
        for number in range(1, 6):
            step(run, ws, number)
            failing |= {1: {"crabrt-commit"}, 2: {"crabrt-engine"}}.get(number, set())
            run._session._job.durable.result(60)
    assert not failing
    lost = [turn.turn for turn in store.turns() if turn.protection == "unprotected"]
    assert lost == [1, 2]
    _every_turn_comes_back(store, {5: digest(ws)}, ws.parent)


def test_a_full_queue_holds_the_next_capture_back(ws: Path, store, disk) -> None:
    def many() -> None:
        with crabrt.open_run(workspace=ws, name="full", gate_limit_ms=200) as run:
            begun(run)
            step(run, ws, 1)
            disk.clear()
            for number in range(2, 2 * QUEUE_MOST + 6):
                step(run, ws, number)
            disk.set()

    with pytest.warns(crabrt.UnprotectedWarning, match="200 ms"):
        many()
    lost = {body.turn for body in store.bodies(Exposed)}
    assert lost
    assert min(lost) > QUEUE_MOST
    assert store.turns()[-1].protection == "durable"


def test_a_child_runs_failed_sync_is_known_to_its_parent(ws: Path, store, monkeypatch) -> None:
    real, failing = os.fdatasync, threading.Event()

    def fdatasync(fd: int) -> None:
        if failing.is_set() and os.readlink(f"/proc/self/fd/{fd}").endswith(".pack"):
            failing.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    @crabrt.agent(name="child")
    def child() -> None:
        run = crabrt.current_run()
        step(run, ws, 1)
        failing.set()
        step(run, ws, 2)

    @crabrt.agent(workspace=ws, name="parent")
    def parent() -> None:
        run = crabrt.current_run()
        step(run, ws, 1)
        child()
        step(run, ws, 2)
        step(run, ws, 3)

    with pytest.warns(crabrt.UnprotectedWarning):
        parent()
    with Store.open(store.home) as objects:
        assert check_everything(objects, read_data=True).troubles == ()
        target = ws.parent / "back"
        restore_to(objects, store.turns("parent")[-1].root, target)
    assert digest(target) == digest(ws)


def test_a_turn_that_nothing_can_be_compared_with_is_no_none(ws: Path, store, monkeypatch) -> None:
    """The baseline came too late, so that what the first turn changed is not known."""
    go_on = threading.Event()
    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", lambda: go_on.wait(60))
    with crabrt.open_run(workspace=ws, name="late", baseline_gate_limit_ms=20) as run:
        with pytest.warns(crabrt.UnprotectedWarning):
            step(run, ws, 1)
        go_on.set()
        step(run, ws, 2)
    first, second = store.turns()[1:]
    assert first.verdict == ("files",)
    assert first.evidence == ("files: unknown, as the state before was not captured",)
    assert second.evidence == ("files: 2 new",)


def test_a_gate_can_be_told_to_wait_for_the_disk(ws: Path, store) -> None:
    with crabrt.open_run(workspace=ws, name="sure", durability="durable") as run:
        for number in (1, 2, 3):
            step(run, ws, number)
            assert order(store)[-1] == ("checkpoint", number - 1)


def test_a_gate_that_waits_for_the_disk_has_its_limit_too(ws: Path, store, disk) -> None:
    with crabrt.open_run(workspace=ws, name="sure", durability="durable", gate_limit_ms=500) as run:
        begun(run)
        step(run, ws, 1)
        disk.clear()
        with pytest.warns(crabrt.UnprotectedWarning, match="not durable within 500 ms"):
            step(run, ws, 2)
        disk.set()
    assert [turn.protection for turn in store.turns()] == ["durable"] * 3


def test_a_copy_elsewhere_cannot_be_asked_for_yet(ws: Path, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_DURABILITY", "replicated")
    with (
        pytest.raises(crabrt.UsageError, match="second place"),
        crabrt.open_run(workspace=ws, name="sure"),
    ):
        pass


def test_what_came_too_late_is_not_captured_after_all(ws: Path, store, monkeypatch) -> None:
    """Jobs whose gates gave up do not pile up behind one that hangs."""
    hangs, looks = threading.Event(), []

    def look() -> None:
        looks.append(1)
        hangs.wait(60)

    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", look)
    with crabrt.open_run(
        workspace=ws, name="hangs", gate_limit_ms=5, baseline_gate_limit_ms=5
    ) as run:
        with pytest.warns(crabrt.UnprotectedWarning):
            steps(run, ws, 30)
        hangs.set()
    assert len(looks) <= 3
    assert store.turns()[-1].protection == "durable"
