"""``last`` is this agent's last run here; another agent's is refused; RUN@T goes another way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Captured, Checkpoint, Forked
from crabrt.core.failpoints import ALL


def named(ws: Path, name: str, result: str):
    @crabrt.agent(workspace=ws, name=name)
    def run() -> str:
        return result

    return run


def test_last_is_the_last_run_of_this_agent(ws: Path, store) -> None:
    one, two = named(ws, "one", "first"), named(ws, "two", "second")
    one()
    two()
    assert one.resume("last") == "first"
    assert two.resume("last") == "second"
    assert len(store.runs()) == 2


def test_last_is_the_last_run_in_this_directory(ws: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    here = named(ws, "fixer", "here")
    here()
    named(other, "fixer", "there")()
    assert here.resume("last") == "here"


def test_last_is_nobodys_where_this_agent_never_ran(ws: Path, tmp_path: Path, store) -> None:
    other = tmp_path / "other"
    other.mkdir()
    named(other, "fixer", "there")()
    named(ws, "another", "else")()
    with pytest.raises(crabrt.NotFound, match="no run of 'fixer' was made here"):
        named(ws, "fixer", "here").resume("last")
    with pytest.raises(crabrt.NotFound, match="no run of open_run was made here"):
        crabrt.open_run(workspace=ws, resume="last").__enter__()
    assert len(store.runs()) == 2


def test_last_of_no_agent_in_particular_is_that_of_the_current_directory(
    ws: Path, tmp_path: Path, monkeypatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    named(ws, "here", "mine")()
    named(other, "there", "theirs")()
    monkeypatch.chdir(ws)
    assert crabrt.resume("last") == "mine"


def test_a_block_takes_up_the_last_block(ws: Path, store) -> None:
    for name in ("a", "b"):
        with pytest.raises(KeyError), crabrt.open_run(workspace=ws, name=name):
            raise KeyError
    named(ws, "agent", "else")()
    with crabrt.open_run(workspace=ws, name="a", resume="last") as run:
        assert run.id == store.run("a").run
    with crabrt.open_run(workspace=ws, resume="last") as run:
        assert run.id == store.run("b").run


def test_the_variable_means_the_last_run_here_too(
    ws: Path, tmp_path: Path, store, monkeypatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    named(ws, "fixer", "here")()
    named(other, "fixer", "there")()
    monkeypatch.setattr("crabrt.runtime.entering._claimed", set())  # by another test, perhaps
    monkeypatch.setenv("CRAB_RESUME", "last")
    assert named(ws, "fixer", "run again")() == "here"
    assert len(store.runs()) == 2


def test_a_run_of_another_agent_is_refused_and_its_files_are_left(
    ws: Path, killed, die, store
) -> None:
    @crabrt.tool
    def act() -> None:
        (ws / "half").write_text("done")
        die()

    @crabrt.agent(workspace=ws, name="builder")
    def build() -> str:
        act()
        return "built"

    killed(build)
    run, entries = store.run().run, len(store.records())
    with pytest.raises(crabrt.NotResumable, match="a run of the agent 'builder', not of 'fixer'"):
        named(ws, "fixer", "mine").resume(run)
    assert (ws / "half").read_text() == "done"
    assert len(store.records()) == entries


def test_a_run_of_no_agent_is_refused_to_one(ws: Path) -> None:
    with crabrt.open_run(workspace=ws, name="block") as run:
        pass
    with pytest.raises(crabrt.NotResumable, match="a run of open_run, not of 'fixer'"):
        named(ws, "fixer", "mine").resume(run.id)


class Steps:
    """A loop of four turns, which counts how often its model was asked."""

    def __init__(self, ws: Path, die) -> None:
        self.ws, self.die = ws, die
        self.log = ws.parent / "asked"

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().split()

    def agent(self, die_at: int | None = None):
        @crabrt.model
        def think(messages: list[dict]) -> str:
            with self.log.open("a") as file:
                file.write(messages[-1]["content"] + " ")
            return "ok"

        @crabrt.tool
        def write(n: int) -> int:
            (self.ws / f"f{n}").write_text(str(n))
            if n == die_at:
                self.die()
            return n

        @crabrt.agent(workspace=self.ws, name="steps")
        def run() -> list[int]:
            seen = []
            for n in range(1, 5):
                think([{"role": "user", "content": str(n)}])
                seen.append(write(n))
            return seen

        return run


@pytest.fixture
def steps(ws: Path, die) -> Steps:
    return Steps(ws, die)


def test_from_the_turn_before_the_one_it_died_in_a_run_goes_another_way(
    steps: Steps, killed, store
) -> None:
    """The reply that led to the tool which killed it is not given again."""
    killed(steps.agent(die_at=3))
    first = store.run().run
    entries = len(store.records(first))
    assert steps.agent().resume(f"{first}@2") == [1, 2, 3, 4]
    (fork,) = [run for run in store.runs() if run.run != first]
    assert (fork.parent, fork.status) == (first, "done")
    assert steps.asked == ["1", "2", "3", "3", "4"]
    assert store.run(first).status == "crashed"
    assert len(store.records(first)) == entries, "the parent is left as it was"


def test_from_where_it_stopped_it_goes_on_in_place(steps: Steps, killed, store) -> None:
    killed(steps.agent(die_at=3))
    first = store.run().run
    steps.agent().resume(f"{first}@-1")
    assert len(store.runs()) == 1
    assert steps.asked == ["1", "2", "3", "4"]
    assert steps.agent().resume(f"{first}@4") == [1, 2, 3, 4], "its last turn is its end"
    assert len(store.runs()) == 1


def test_a_fork_of_a_turn_that_was_only_captured_begins_with_its_files(
    steps: Steps, killed, store
) -> None:
    """The process died before that turn's checkpoint was durable; the fork makes it so."""

    def body() -> None:
        ALL["checkpoint.synced"].action = threading.Event().wait  # the disk hangs
        steps.agent(die_at=3)()

    killed(body)
    first = store.run().run
    assert store.bodies(Captured, first)
    assert not store.bodies(Checkpoint, first)
    assert steps.agent().resume(f"{first}@2") == [1, 2, 3, 4]
    assert sorted(path.name for path in steps.ws.iterdir()) == ["f1", "f2", "f3", "f4"]
    (fork,) = [run.run for run in store.runs() if run.run != first]
    kinds = [type(body) for body in (record.body for record in store.records(fork))]
    assert Checkpoint in kinds[kinds.index(Forked) :]
