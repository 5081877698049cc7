"""Two agents in one program, each with a server and a workspace of its own; one of them rolls back.

usage: together.py TOP threads|tasks

Their tools run at the same time. Writes, for each: what its server counted before and after, whose
number it has, and which processes its turns have; then how many children nobody collected.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import crabrt
from crabrt.core.ids import ObjectId
from crabrt.journal import RunIndex
from crabrt.process import table
from crabrt.process.state import read_state
from crabrt.store import Store

# That of counting.py, which cannot be imported: it is a program.
SERVER = Path(__file__).with_name("counting.py").read_text().split('"""')[3]

top, how = Path(sys.argv[1]), sys.argv[2]
both = threading.Barrier(2)
meeting = threading.Barrier(2)


def start(where: str) -> None:
    both.wait(30)
    here = top / where
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(here)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd=here,
    )  # fmt: skip
    child.returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not (here / "address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    both.wait(30)


def add(where: str, number: int) -> list[int]:
    pid, port = map(int, (top / where / "address").read_text().split())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"%d" % number)
        return [int(client.recv(100)), pid]


start_tool, add_tool = crabrt.tool(start), crabrt.tool(add)


@crabrt.tool
async def astart(where: str) -> None:
    await asyncio.to_thread(start, where)


@crabrt.tool
async def aadd(where: str, number: int) -> list[int]:
    return await asyncio.to_thread(add, where, number)


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.model
async def athink(turn: int) -> int:
    return turn


def one(where: str) -> list[list[int]]:
    think(1)
    start_tool(where)
    think(2)
    said = [add_tool(where, 1)]
    think(3)
    said.append(add_tool(where, 10))
    meeting.wait(60)
    if where == "a":
        crabrt.current_run().rollback(to=2)
    meeting.wait(60)
    think(4)
    return [*said, add_tool(where, 100)]


async def aone(where: str) -> list[list[int]]:
    await athink(1)
    await astart(where)
    await athink(2)
    said = [await aadd(where, 1)]
    await athink(3)
    said.append(await aadd(where, 10))
    await asyncio.to_thread(meeting.wait, 60)
    if where == "a":
        await crabrt.current_run().arollback(to=2)
    await asyncio.to_thread(meeting.wait, 60)
    await athink(4)
    return [*said, await aadd(where, 100)]


def told(where: str) -> list[list[int]]:
    """The topmost processes of each turn."""
    home = Path(os.environ["CRAB_HOME"])
    with RunIndex.open(home) as index:
        index.refresh()
        run = next(one for one in index.runs() if one.workspace == os.fsencode(top / where))
        turns = index.turns(run.run)
    store = Store.open(home)
    states = [read_state(ObjectId(t.processes), store) if t.processes else None for t in turns]
    return [[] if s is None else [tree.top.pid for tree in s.trees] for s in states]


async def gathered() -> dict[str, list[list[int]]]:
    return dict(zip("ab", await asyncio.gather(agents["a"]("a"), agents["b"]("b")), strict=True))


loop = aone if how == "tasks" else one
agents = {where: crabrt.agent(workspace=top / where, name=where)(loop) for where in "ab"}
said: dict[str, list[list[int]]] = {}
if how == "tasks":
    said = asyncio.run(gathered())
else:
    threads = [
        threading.Thread(target=lambda where=where: said.update({where: agents[where](where)}))
        for where in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
dead = [one.pid for one in table.descendants(os.getpid()) if one.ended]
json.dump([said, {where: told(where) for where in "ab"}, dead], sys.stdout)
