"""Early work in real runs: while a tool runs, and at nobody's expense."""

import os
import threading
import time

import pytest

import crabrt
from crabrt.core.entries import Checkpoint
from crabrt.core.ids import RunId
from crabrt.inspector import early
from crabrt.inspector.early import EarlyWork
from crabrt.journal import read_journal, run_dir
from crabrt.runtime.committing import Committer
from crabrt.runtime.lingering import Lingering
from crabrt.runtime.turns import TurnMachine
from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.workspace import read_tree

PATIENCE_S = 60


@pytest.fixture
def ws(ws, monkeypatch):
    monkeypatch.setattr(early, "machine_is_busy", lambda: False)
    return ws


def wait_until(what):
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.tool
def act(what) -> None:
    what()


def play(ws, *acts, observer="fanotify"):
    """A run with a turn for each of them; its checkpoints of turns, and its engine."""
    engines = []

    @crabrt.agent(workspace=ws, name="run", observer=observer)
    def loop() -> str:
        engines.append(crabrt.current_run()._session.engine)
        for turn, what in enumerate(acts):
            think(turn)
            act(what)
        return crabrt.current_run().id

    run = loop()
    records = read_journal(run_dir(ws.parent / "home", RunId(run)))
    bodies = (record.body for record in records)
    made = [one for one in bodies if isinstance(one, Checkpoint) and one.turn and not one.inner]
    return made, engines[0]


def captured(ws, checkpoint):
    """Path and size of the files in a state."""
    with Store.open(ws.parent / "home") as store:
        return {
            path: entry.content.size
            for path, entry in read_tree(store, checkpoint.root)
            if entry.content is not None
        }


@pytest.mark.root
def test_files_that_a_tool_has_finished_are_read_before_it_returns(ws):
    def write_and_wait():
        for number in range(20):
            (ws / f"{number}").write_bytes(os.urandom(20_000))
        engine = crabrt.current_run()._session.engine
        wait_until(lambda: len(engine.early.reads._readings) == 20)
        (ws / "0").write_bytes(b"after all")

    (checkpoint,), engine = play(ws, write_and_wait)
    assert engine.early.reads.used == 19
    truth = {path: fact.size for path, fact in oracle.manifest(ws).items() if fact.kind == "file"}
    assert captured(ws, checkpoint) == truth
    assert checkpoint.observer.startswith("fanotify")
    assert 20 * 20_000 < checkpoint.bytes_stored < 21 * 20_000


@pytest.mark.root
def test_what_a_turn_read_early_is_no_part_of_the_next(ws):
    def write_and_remove():
        (ws / "gone").write_bytes(os.urandom(20_000))
        engine = crabrt.current_run()._session.engine
        wait_until(lambda: len(engine.early.reads._readings) == 1)
        (ws / "gone").unlink()

    def nothing():
        assert not crabrt.current_run()._session.engine.early.reads._readings

    (first, second), engine = play(ws, write_and_remove, nothing)
    assert engine.early.reads.used == 0
    assert first.root == second.root
    assert first.bytes_stored > 20_000
    assert second.bytes_stored == 0


@pytest.mark.root
def test_quick_tools_see_no_round(ws, monkeypatch):
    rounds = []
    monkeypatch.setattr(EarlyWork, "round", lambda self, pause: rounds.append(1))
    monkeypatch.setattr("crabrt.runtime.lingering.PAUSE_S", PATIENCE_S)
    began = time.monotonic()
    play(ws, *[lambda: (ws / "file").write_bytes(b"x")] * 20)
    assert time.monotonic() - began < PATIENCE_S, "somebody waited for a lingering thread"
    assert not rounds


@pytest.mark.root
def test_the_end_of_the_turn_breaks_a_round_off(ws, monkeypatch):
    begun = threading.Event()

    def endless(self, pause):
        begun.set()
        while not pause(0.01):
            continue
        return 0.0

    monkeypatch.setattr(EarlyWork, "round", endless)

    def write():
        (ws / "file").write_bytes(b"x")
        assert begun.wait(PATIENCE_S)

    checkpoints, _ = play(ws, write, lambda: begun.clear() or begun.wait(PATIENCE_S))
    assert [captured(ws, one) for one in checkpoints] == [{b"file": 1}] * 2
    assert begun.is_set()


def test_under_a_scan_the_thread_never_lingers(ws, monkeypatch):
    monkeypatch.setattr(EarlyWork, "round", lambda *_: pytest.fail("a round"))
    queued = []

    def write():
        (ws / "file").write_bytes(b"x")
        queued.append(crabrt.current_run()._session.engine.lingering._queued)

    for observer in ("scan", "auto"):
        play(ws, write, write, observer=observer)
    assert queued == [False] * 4


def test_a_disk_that_fails_early_ends_the_epoch_of_what_was_captured():
    answers = iter([None, OSError("the disk")])

    class Writer:
        losses = 0

        def sync(self):
            answer = next(answers)
            if answer is not None:
                raise answer

    committer = Committer(Writer(), lambda: None)
    try:
        assert (committer.sync().result(), committer.epoch) == (True, (0, 0))
        assert (committer.sync().result(), committer.epoch) == (False, (1, 0))
    finally:
        committer.close()


class Work:
    """Early work that says what it is told to."""

    possible = True

    def __init__(self, *pauses):
        self.pauses = list(pauses)

    def round(self, pause):
        return self.pauses.pop(0)


def linger(work, machine, wanted=lambda: False):
    """A lingering thread that is this one: what it is asked to run is kept."""
    started = []
    lingering = Lingering(work, started.append, wanted)
    lingering.tool_began(machine)
    return lingering, started


def test_it_lingers_once_while_a_tool_runs_and_until_there_is_no_more_to_do():
    machine, work = TurnMachine(running=1), Work(0.0, 0.001, None)
    lingering, started = linger(work, machine)
    lingering.tool_began(machine)
    lingering.go_on()
    assert len(started) == 1
    started[0]()
    assert work.pauses == []
    lingering.go_on()
    assert len(started) == 2


def test_it_does_not_linger_when_the_tool_has_ended():
    machine, work = TurnMachine(running=1), Work(0.0)
    lingering, started = linger(work, machine)
    machine.running = 0
    started[0]()
    assert work.pauses == [0.0]
    lingering.go_on()
    assert len(started) == 1


def test_who_needs_the_thread_before_it_lingers_gets_it(monkeypatch):
    monkeypatch.setattr("crabrt.runtime.lingering.PAUSE_S", PATIENCE_S)
    machine, work = TurnMachine(running=1), Work()
    lingering, started = linger(work, machine)
    lingering.break_off()
    started[0]()  # returns at once
    lingering.go_on()
    assert len(started) == 2


def test_an_engine_that_is_being_closed_is_no_error():
    def closed(_):
        raise RuntimeError("cannot schedule new futures after shutdown")

    lingering = Lingering(Work(), closed, lambda: False)
    lingering.tool_began(TurnMachine(running=1))
    assert not lingering._queued
