"""`open_run`: what it declares of calls, what it refuses, and what is left of it when disabled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import crabrt
import crabrt.errors
from crabrt.core.entries import Intent, RolledBack
from crabrt.core.verdicts import ExternalKind, InDoubtPolicy, Prior


def test_a_call_says_what_it_does_in_the_decorators_words(ws: Path, store) -> None:
    with crabrt.open_run(workspace=ws, name="declared") as run:
        run.tool_call(
            "charge", {"amount": 5}, lambda amount: amount,
            effect="external", kind="idempotent", in_doubt="retry", target=lambda amount: "bank",
        )  # fmt: skip
        run.tool_call("look", {}, lambda: None, effect="none")
    charge, look = store.bodies(Intent)
    assert (charge.prior, look.prior) == (Prior.EXTERNAL, Prior.NONE)
    external = charge.external
    assert (external.kind, external.in_doubt) == (ExternalKind.IDEMPOTENT, InDoubtPolicy.RETRY)
    assert external.target == "bank"


@pytest.mark.parametrize("option", [{"effect": "some"}, {"effects": None}, {"keys": None}])
def test_a_word_that_nobody_knows_is_refused(ws: Path, option, store) -> None:
    with (
        pytest.raises(crabrt.UsageError),
        crabrt.open_run(workspace=ws, name="refused") as run,
    ):
        run.tool_call("act", {}, lambda: None, **option)
    assert not store.bodies(Intent)


def test_a_run_that_was_opened_acts_outside_once(ws: Path, killed, die) -> None:
    ledger = ws.parent / "ledger"

    def loop(deadly: bool, resume: str | None = None) -> str:
        def charge(amount: int) -> str:
            with ledger.open("a") as file:
                file.write(f"{amount}\n")
            return "charged"

        def write() -> None:
            (ws / "a").write_text("x")
            if deadly:
                die()

        with crabrt.open_run(workspace=ws, name="payer", resume=resume) as run:
            receipt = run.tool_call("charge", {"amount": 5}, charge, effect="external")
            run.tool_call("write", {}, write)
        return receipt

    killed(lambda: loop(deadly=True))
    assert loop(deadly=False, resume="last") == "charged"
    assert ledger.read_text() == "5\n"


async def test_a_rollback_is_to_a_turn_and_not_counted_from_the_end(ws: Path, store) -> None:
    with crabrt.open_run(workspace=ws, name="rolling") as run:
        run.tool_call("write", {}, lambda: (ws / "a").write_text("x"))
        with pytest.raises(crabrt.UsageError, match="-1 is no turn"):
            run.rollback(to=-1)
        with pytest.raises(crabrt.UsageError, match="-1 is no turn"):
            await run.arollback(to=-1)
        assert run.rollback(to=0) == 2
    assert [body.to for body in store.bodies(RolledBack)] == [0]


def test_what_a_rollback_raises_can_be_caught_by_its_public_name() -> None:
    assert crabrt.RestoreFailed is crabrt.errors.RestoreFailed
    assert "RestoreFailed" in crabrt.__all__


class TestDisabled:
    @pytest.fixture(autouse=True)
    def disabled(self, ws: Path, monkeypatch) -> None:
        monkeypatch.setenv("CRAB_DISABLE", "1")

    def test_a_run_that_is_opened_records_nothing(self, ws: Path, home: Path) -> None:
        with crabrt.open_run(workspace=ws, name="off") as run:
            assert not run
            assert not crabrt.current_run()
            assert (
                run.model_call([{"role": "user", "content": "x"}], lambda asked: "said") == "said"
            )
            assert run.tool_call("act", {"n": 1}, lambda n: n + 1) == 2
            with run.tool_call("act", {"n": 1}) as call:
                out = call.value if call.sealed else call.result(3)
            assert out == 3
        assert not home.exists()

    async def test_so_does_an_async_one(self, ws: Path, home: Path) -> None:
        async with crabrt.open_run(workspace=ws, name="off") as run:
            async with run.tool_call("act", {}) as call:
                assert call.result("done") == "done"
            assert await run.acheckpoint() == ""
        assert not await asyncio.to_thread(home.exists)

    def test_what_the_block_raises_is_raised(self, ws: Path) -> None:
        with pytest.raises(KeyError), crabrt.open_run(workspace=ws, name="off"):
            raise KeyError

    def test_a_resume_is_refused_and_nothing_is_touched(self, ws: Path, monkeypatch, store) -> None:
        @crabrt.agent(workspace=ws, name="on")
        def run() -> str:
            return "ran"

        monkeypatch.delenv("CRAB_DISABLE")
        run()
        entries = len(store.records())
        monkeypatch.setenv("CRAB_DISABLE", "1")
        assert run() == "ran"
        with pytest.raises(crabrt.NotResumable, match="crabrt is disabled"):
            run.resume("last")
        with pytest.raises(crabrt.NotResumable, match="crabrt is disabled"):
            crabrt.open_run(workspace=ws, resume="last").__enter__()
        assert (len(store.runs()), len(store.records())) == (1, entries)
