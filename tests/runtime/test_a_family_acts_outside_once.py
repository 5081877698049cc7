"""What one run of a family did outside, no other does again: forks, their child runs, resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

import crabrt


class Office:
    """A boss whose second turn is a child run that pays, and whose third writes."""

    def __init__(self, ws: Path, die) -> None:
        self.ws, self.die = ws, die
        self.ledger = ws.parent / "ledger"  # outside of the workspace: no restore takes it back

    def pay(self, amount: int) -> str:
        with self.ledger.open("a") as file:
            file.write(f"{amount}\n")
        return f"charged {amount}"

    @property
    def paid(self) -> list[str]:
        return self.ledger.read_text().split()

    def boss(self, die_at: str | None = None, *, amount: int = 5, deep: bool = False):
        @crabrt.tool
        def write(name: str) -> None:
            (self.ws / name).write_text(name)
            if name == die_at:
                self.die()

        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            return self.pay(amount)

        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        def ask(what: object) -> None:
            think([{"role": "user", "content": str(what)}])

        @crabrt.agent(workspace=self.ws)
        def payer(amount: int) -> str:
            ask("how much?")
            receipt = charge(amount)
            ask(receipt)
            write("receipt")
            return receipt

        @crabrt.agent(workspace=self.ws)
        def clerk(amount: int) -> str:
            return payer(amount)

        @crabrt.agent(workspace=self.ws)
        def boss() -> str:
            ask("begin")
            write("begun")
            ask("pay")
            receipt = (clerk if deep else payer)(amount)
            ask("end")
            write("ended")
            return receipt

        return boss


@pytest.fixture
def office(ws: Path, die) -> Office:
    return Office(ws, die)


def fork_of(store, parent: str) -> str:
    (fork,) = [
        run.run for run in store.runs() if run.parent == parent and run.view.lineage.call is None
    ]
    return fork


@pytest.mark.parametrize("deep", [False, True], ids=["a child", "a child's child"])
def test_a_child_run_of_a_fork_does_not_act_again(office: Office, store, deep: bool) -> None:
    assert office.boss(deep=deep)() == "charged 5"
    first = store.run("boss").run
    assert office.boss(deep=deep).resume(f"{first}@1") == "charged 5"
    assert office.paid == ["5"]
    fork = fork_of(store, first)
    assert store.run(fork).status == "done"
    below = [run for run in store.runs() if run.parent == fork]
    assert [run.status for run in below] == ["done"], "it had a child run of its own"


def test_a_child_run_of_a_fork_that_asks_for_something_else_does_act(office: Office, store) -> None:
    office.boss()()
    run = store.run("boss").run
    assert office.boss(amount=7).resume(f"{run}@1") == "charged 7"
    assert office.paid == ["5", "7"]


@pytest.mark.parametrize("moment", ["receipt", "ended"])
def test_a_fork_that_is_killed_behind_such_a_call_goes_on_and_does_not_act_again(
    office: Office, store, killed, moment: str
) -> None:
    """Its own record says nothing of the call that the family's answered."""
    office.boss()()
    first = store.run("boss").run
    killed(lambda: office.boss(moment).resume(f"{first}@1"))
    fork = fork_of(store, first)
    assert office.boss().resume(fork) == "charged 5"
    assert office.paid == ["5"]
    assert store.run(fork).status == "done"


def test_a_run_that_goes_on_behind_its_fork_does_not_do_in_a_child_what_that_did(
    office: Office, store, killed
) -> None:
    killed(office.boss("begun"))
    first = store.run("boss").run
    assert office.boss().resume(f"{first}@0") == "charged 5"
    assert office.boss().resume(first) == "charged 5"
    assert office.paid == ["5"]


def test_a_fork_that_the_family_answered_goes_on_after_it_was_killed(
    ws: Path, store, killed, die
) -> None:
    ledger = ws.parent / "ledger"

    def agent(die_at: str | None = None):
        @crabrt.model
        def think(messages: list[dict]) -> str:
            return "ok"

        @crabrt.tool(effect="external")
        def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            return "charged"

        @crabrt.tool
        def write(name: str) -> None:
            (ws / name).write_text(name)
            if name == die_at:
                die()

        @crabrt.agent(workspace=ws, name="payer")
        def run() -> str:
            for name in ("one", "two"):
                think([{"role": "user", "content": name}])
                write(name)
            receipt = charge(5)
            write("receipt")
            think([{"role": "user", "content": receipt}])
            write("end")
            return receipt

        return run

    agent()()
    first = store.run("payer").run
    killed(lambda: agent("end").resume(f"{first}@1"))
    fork = fork_of(store, first)
    assert agent().resume(fork) == "charged"
    assert ledger.read_text() == "5\n"
    assert [turn.turn for turn in store.turns(fork)] == [0, 1, 2, 3]
