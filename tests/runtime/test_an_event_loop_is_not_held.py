"""Checkpoints and rollbacks in async loops: the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Recorded
from crabrt.runtime import checkpoints


class Held:
    """Holds the engine's thread at its next checkpoint until the event loop has let it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        look = checkpoints.look

        def held(session):
            self.entered.set()
            assert self.leave.wait(60), "nobody could let it go: the event loop is held"
            return look(session)

        monkeypatch.setattr(checkpoints, "look", held)

    async def let_go(self) -> None:
        await asyncio.to_thread(self.entered.wait)
        self.leave.set()


async def test_a_checkpoint_is_awaited(ws: Path, store, monkeypatch) -> None:
    async with crabrt.open_run(workspace=ws, name="later") as run:
        await asyncio.to_thread(run.tool_call, "write", {}, lambda: (ws / "a").write_text("1"))
        held = Held(monkeypatch)
        target, _ = await asyncio.gather(run.acheckpoint("here"), held.let_go())
        assert target == f"{run.id}@1.1"
    assert store.run("later").view.labels == {"here": (1, 1)}


async def test_a_rollback_is_awaited_and_replays(ws: Path, store, monkeypatch) -> None:
    async with crabrt.open_run(workspace=ws, name="back") as run:
        await asyncio.to_thread(run.tool_call, "write", {}, lambda: (ws / "a").write_text("1"))
        held = Held(monkeypatch)
        turn, _ = await asyncio.gather(run.arollback(to=0), held.let_go())
        assert (turn, run.turn) == (2, 2)
        assert not (ws / "a").exists()
    async with crabrt.open_run(workspace=ws, resume="back") as again:
        await asyncio.to_thread(again.tool_call, "write", {}, pytest.fail)
        assert await asyncio.gather(again.arollback(to=0)) == [2]
    assert len(store.bodies(Recorded, "back")) == 1


async def test_a_label_that_may_not_be_one_is_refused_before_anything_happens(ws: Path) -> None:
    async with crabrt.open_run(workspace=ws) as run:
        with pytest.raises(crabrt.UsageError):
            await run.acheckpoint("1")


async def test_outside_of_a_run_there_is_nothing_to_await() -> None:
    run = crabrt.current_run()
    assert await run.acheckpoint("x") == ""
    with pytest.raises(crabrt.NotFound):
        await run.arollback(to=1)
