"""The setting ``name`` is for the run that is begun; child runs are called as their agents are."""

from __future__ import annotations

from pathlib import Path

import pytest

import crabrt
from crabrt.core.ids import derived_run_id
from crabrt.runtime import opening


class Company:
    """A boss and its helper; which writes, and pays at the end."""

    def __init__(self, ws: Path, die) -> None:
        self.ws, self.die = ws, die
        self.log = ws.parent / "log"  # outside of the workspace: no restore takes it back

    def did(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} ")

    @property
    def done(self) -> list[str]:
        return self.log.read_text().split()

    def boss(self, die_at: str | None = None):
        @crabrt.tool
        def write(name: str) -> None:
            (self.ws / name).write_text(name)
            self.did(name)
            if name == die_at:
                self.die()

        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            self.did("charged")
            return f"charged {amount}"

        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        def ask(what: object) -> None:
            think([{"role": "user", "content": str(what)}])

        @crabrt.agent(workspace=self.ws)
        def helper() -> str:
            for n in range(3):
                ask(n)
                write(f"c{n}")
            receipt = charge(5)
            write("paid")
            return receipt

        @crabrt.agent(workspace=self.ws)
        def boss() -> str:
            ask("plan")
            receipt = helper()
            ask("after")
            write("after")
            return receipt

        return boss


@pytest.fixture
def company(ws: Path, die) -> Company:
    return Company(ws, die)


ALL = ["c0", "c1", "c2", "charged", "paid", "after"]
FILES = sorted(set(ALL) - {"charged"})


def test_the_decorators_keyword_beats_the_variable(ws: Path, store, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_NAME", "other")

    @crabrt.agent(workspace=ws, name="mine")
    def named() -> None: ...

    @crabrt.agent(workspace=ws)
    def unnamed() -> None: ...

    named()
    assert store.run().name == "mine"
    unnamed()
    assert store.run().name == "other"
    assert store.run().view.agent == "unnamed"


def test_child_runs_are_called_as_their_agents_are(company: Company, store, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_NAME", "project")
    company.boss()()
    assert sorted(run.name for run in store.runs()) == ["helper", "project"]


def test_blocks_inside_a_run_are_called_as_their_directory_is(ws: Path, store, monkeypatch) -> None:
    monkeypatch.setenv("CRAB_NAME", "project")
    with crabrt.open_run(workspace=ws), crabrt.open_run(workspace=ws):
        pass
    assert sorted(run.name for run in store.runs()) == ["project", "ws"]


@pytest.mark.parametrize("where", ["the workspace", "the environment"])
@pytest.mark.parametrize("moment", ["c1", "c2", "paid", "after"])
def test_killed_in_or_behind_a_child_run_nothing_of_it_is_lost(
    where: str, moment: str, company: Company, killed, store, monkeypatch
) -> None:
    if where == "the workspace":
        (company.ws / "crab.toml").write_text('name = "project"\n')
    else:
        monkeypatch.setenv("CRAB_NAME", "project")
    killed(company.boss(moment))
    assert company.boss().resume("last") == "charged 5"
    assert sorted(p.name for p in company.ws.iterdir() if p.name != "crab.toml") == FILES
    assert company.done.count("charged") == 1
    assert len(store.runs()) == 2
    assert {run.status for run in store.runs()} == {"done"}


def test_another_name_at_the_resume_finds_the_same_child_run(
    company: Company, killed, store, monkeypatch
) -> None:
    monkeypatch.setenv("CRAB_NAME", "one")
    killed(company.boss("paid"))
    monkeypatch.setenv("CRAB_NAME", "two")
    assert company.boss().resume("last") == "charged 5"
    assert company.done == ["c0", "c1", "c2", "charged", "paid", "paid", "after"]
    assert len(store.runs()) == 2


def test_a_child_run_that_an_earlier_version_called_as_configured_is_found(
    company: Company, killed, store, monkeypatch
) -> None:
    def as_it_was(name: str, parent: str, identity: str) -> str:
        return derived_run_id("project", parent, identity)

    monkeypatch.setenv("CRAB_NAME", "project")
    with monkeypatch.context() as patch:
        patch.setattr(opening, "derived_run_id", as_it_was)
        killed(company.boss("c2"))
    assert {run.run.rpartition("-")[0] for run in store.runs()} == {"project"}
    assert company.boss().resume("last") == "charged 5"
    assert company.done == ["c0", "c1", "c2", "c2", "charged", "paid", "after"]
    assert sorted(p.name for p in company.ws.iterdir()) == FILES
    assert len(store.runs()) == 2


@pytest.mark.parametrize("name", ["search the web", "web/search", "<lambda>"])
def test_a_tool_that_was_cut_off_may_have_a_name_that_no_run_could_have(
    name: str, ws: Path, killed, die
) -> None:
    def agent(deadly: bool):
        @crabrt.tool(name=name)
        def act() -> str:
            (ws / "a").write_text("x")
            if deadly:
                die()
            return "acted"

        @crabrt.agent(workspace=ws, name="plain")
        def run() -> str:
            return act()

        return run

    killed(agent(deadly=True))
    assert agent(deadly=False).resume("last") == "acted"
