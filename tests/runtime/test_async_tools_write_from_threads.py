"""Async tools that write through aiofiles: side by side, from worker threads, killed halfway."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiofiles
import pytest

import crabrt

PIECES = 8
TURNS = 3


def agent(ws: Path, at: Callable[[str], None]):
    """Three turns, in each of which two tools write a file and append to one, piece by piece."""

    @crabrt.model
    async def think(turn: int) -> int:
        at(f"asked {turn}")
        return turn

    @crabrt.tool
    async def write(turn: int, name: str) -> int:
        async with aiofiles.open(ws / name, "w") as file, aiofiles.open(ws / "log", "a") as log:
            for piece in range(PIECES):
                await file.write(f"{turn} {piece}\n" * 1_000)
                await file.flush()
                at(f"{name} {turn} {piece}")
            await log.write(f"{turn}\n")
        async with aiofiles.open(ws / name) as file:
            lines = len(await file.readlines())
        for path in (name, "log"):
            os.utime(ws / path, ns=(0, 10**18 + turn))
        return lines

    @crabrt.agent(workspace=ws, name="writers")
    async def work() -> list[int]:
        said = []
        for turn in range(TURNS):
            await think(turn)
            said += await asyncio.gather(write(turn, "a"), write(turn, "b"))
        await think(TURNS)
        return said

    return work


LINES = [PIECES * 1_000] * 2 * TURNS


@pytest.mark.parametrize("moment", ["a 0 3", "b 1 7", "asked 2", "a 2 0", "b 2 5", "asked 3"])
def test_killed_at_any_write_it_ends_like_the_undisturbed_twin(
    moment, ws, tmp_path, store, killed, die, state
) -> None:
    killed(lambda: asyncio.run(agent(ws, lambda now: die() if now == moment else None)()))
    assert store.run().status == "crashed"
    assert asyncio.run(agent(ws, lambda now: None).resume("last")) == LINES
    twin = tmp_path / "twin"
    twin.mkdir()
    assert asyncio.run(agent(twin, lambda now: None)()) == LINES
    assert state(ws) == state(twin)


def company(ws: Path, at: Callable[[str], None]):
    """Two agents side by side, each with a directory of its own in the workspace of their boss."""

    def worker(name: str):
        @crabrt.model
        async def think(turn: int) -> int:
            return turn

        @crabrt.tool
        async def write(turn: int) -> int:
            async with aiofiles.open(ws / f"{name}-{turn}", "w") as file:
                for piece in range(PIECES):
                    await file.write(f"{turn} {piece}\n" * 1_000)
                    await file.flush()
                    at(f"{name} {turn} {piece}")
            os.utime(ws / f"{name}-{turn}", ns=(0, 10**18 + turn))
            return turn

        @crabrt.agent(workspace=ws, name=name)
        async def work() -> int:
            written = 0
            for turn in range(TURNS):
                await think(turn)
                written += await write(turn)
            return written

        return work

    workers = [worker("one"), worker("two")]

    @crabrt.agent(workspace=ws, name="boss")
    async def boss() -> list[int]:
        return await asyncio.gather(*(work() for work in workers))

    return boss


@pytest.mark.parametrize("moment", ["one 0 5", "two 1 0", "one 1 7", "two 2 4"])
def test_agents_side_by_side_do_not_undo_each_others_work(
    moment, ws, tmp_path, killed, die, state
) -> None:
    written = [sum(range(TURNS))] * 2
    killed(lambda: asyncio.run(company(ws, lambda now: die() if now == moment else None)()))
    assert asyncio.run(company(ws, lambda now: None).resume("last")) == written
    twin = tmp_path / "twin"
    twin.mkdir()
    assert asyncio.run(company(twin, lambda now: None)()) == written
    assert state(ws) == state(twin)


def test_every_turn_of_it_can_be_had(ws, tmp_path, store, state) -> None:
    seen = {}

    def at(now: str) -> None:
        if now.startswith("asked "):
            seen[int(now.split()[1])] = state(ws)

    asyncio.run(agent(ws, at)())
    assert [turn.restorable for turn in store.turns()] == [True] * (TURNS + 2)
    run = store.run().run
    for turn, expected in seen.items():
        elsewhere = tmp_path / f"turn-{turn}"
        words = ["restore", f"{run}@{turn}", "--to", elsewhere]
        subprocess.run([sys.executable, "-m", "crabrt", *words], check=True, timeout=60)
        assert state(elsewhere) == expected
