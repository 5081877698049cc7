"""The agent whose life is taken: a decorated loop of generated turns, and a diary that survives it.

As a program: ``loop.py WORKSPACE HOME SEED TURNS`` runs it once; with ``resume`` behind that, it
goes on. The diary lies beside the workspace. What a tool did is in it, with the oracle's digest,
before the tool returns; that a gate was passed is in it before the next tool acts.
"""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import turns as generated

import crabrt
import crabrt.store.writer as writer_module
from crabrt.store import Store
from crabrt.testing.model import Reply, ScriptedModel, ToolCall
from crabrt.testing.oracle import digest_of, manifest

LONG = 70_000  # characters of a result: too long to be kept in the journal itself


@dataclass(frozen=True)
class Life:
    """One run to be: where, and which turns.

    Attributes:
        rollback, again: the loop goes back by five turns after each of these turns (0: never).
        label: the loop makes a checkpoint of its own in this turn (0: never).
    """

    workspace: Path
    home: Path
    seed: int
    turns: int
    wait_s: float = 0.002
    rollback: int = 0
    again: int = 0
    label: int = 0

    keeps_time: ClassVar[bool] = True
    """Two lives of a seed have the same times in their files."""

    @property
    def diary(self) -> Path:
        return Path(f"{self.workspace}.diary")

    def note(self, *words):
        """Append a line, durable when this returns: one write, so that no kill can tear it."""
        handle = os.open(self.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, (" ".join(map(str, words)) + "\n").encode())
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def act(self, number, part):
        """Do a part of a turn."""
        return generated.act(self.workspace, self.seed, number, part)


def parts(number):
    """How many tools the model calls in its reply."""
    return 1 + number % 3


def script(life):
    """What the model replies: tool calls for every turn, then the last word."""
    replies = [
        Reply(
            f"turn {number}",
            tuple(ToolCall("act", {"number": number, "part": p}) for p in range(parts(number))),
            wait_s=life.wait_s,
        )
        for number in range(1, life.turns + 1)
    ]
    return [*replies, "done"]


def tools_of(life):
    """The tool, which keeps the diary."""

    @crabrt.tool
    def act(number: int, part: int) -> str:
        turn = crabrt.current_run().turn
        if part == 0:
            life.note("passed", turn - 1)
        did = life.act(number, part)
        if part + 1 == parts(number):
            life.note("ran", turn, *digests(life))
        if number % 7 == 3:
            raise ValueError(f"turn {number} fails: {did}")
        return did + "." * (LONG if number % 5 == 0 else 0)

    def use(message):
        for call in message["tool_calls"]:
            try:
                out = act(**json.loads(call["function"]["arguments"]))
            except ValueError as error:
                out = str(error)
            yield {"role": "tool", "tool_call_id": call["id"], "content": out[:200]}

    return use


def agent(life):
    """The decorated loop."""
    scripted, use = ScriptedModel(script(life)), tools_of(life)

    @crabrt.model
    def think(messages: list[dict]) -> dict:
        return scripted(messages)

    @crabrt.agent(
        workspace=life.workspace,
        name="life",
        raises=ValueError,
        home=life.home,
        gate_limit_ms=60_000,
    )
    def live(count: int) -> str:
        run = crabrt.current_run()
        messages = [{"role": "user", "content": f"{count} turns"}]
        for number in range(1, count + 1):
            messages.append(think(messages))
            messages += use(messages[-1])
            if number == life.label:
                messages.append({"role": "user", "content": run.checkpoint(label="halfway")[-4:]})
            if number in (life.rollback, life.again):
                run.rollback(to=number - 5)
        return think(messages)["content"]

    return live


def lead(life, *, resume=False):
    """Run the loop, or take it up where it stopped."""
    live = agent(life)
    said = live.resume("life") if resume else live(life.turns)
    life.note("ended", said)


def digests(life):
    """`digests_of` the workspace."""
    return digests_of(manifest(life.workspace))


def digests_of(facts):
    """The digest of a manifest, and of what in it would be the same an hour later."""
    timeless = {path: replace(fact, mtime_ns=0) for path, fact in facts.items()}
    return digest_of(facts), digest_of(timeless)


def prepare(life):
    """Make the workspace as the run will find it."""
    life.workspace.mkdir(parents=True)
    for part in range(3):
        life.act(0, part)
    life.note("ran", 0, *digests(life))


def fill_packs_soon():
    """In this process packs are full, and rows many, so soon that it happens several times."""
    Store.writer.__kwdefaults__["pack_bytes"] = 60_000
    writer_module._PUSH_ROWS = 8


def life_of(place, seed, turns, **more):
    return Life(Path(place) / "ws", Path(place) / "home", int(seed), int(turns), **more)


if __name__ == "__main__":
    fill_packs_soon()
    lead(
        life_of(sys.argv[1], sys.argv[2], sys.argv[3], rollback=8, again=10, label=4),
        resume="resume" in sys.argv[4:],
    )
