#!/usr/bin/env python3
"""The README's pictures of ``crab tui``, from a recorded run: ``docs/pictures/screenshots.py``.

The journal is written as the recorded loop's would be, from the trace and with its times, so the
pictures are the same each time. Nothing is run.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from crabrt.core.clock import Moment
from crabrt.core.content import build
from crabrt.core.entries import (
    CallId,
    Checkpoint,
    Ended,
    Gated,
    Intent,
    Labelled,
    Lineage,
    Observed,
    Payload,
    Request,
    Response,
    Result,
    Started,
    TurnOpened,
)
from crabrt.core.ids import RunId
from crabrt.core.verdicts import Effect, Protection, Verdict
from crabrt.journal import Journal, Lease, run_dir
from crabrt.store import Store
from crabrt.tui.app import CrabApp

HERE = Path(__file__).parent
TRACE = HERE.parents[1] / "traces" / "repair.jsonl"
RUN = "repair-5d84"
FIXED = 16  # the turn that repairs it
SIZES = {"tui-timeline.svg": (170, 34), "tui-turn.svg": (110, 22)}
encode = msgspec.msgpack.encode


class RecordedClock:
    """The time that the trace says it is."""

    def __init__(self) -> None:
        self.now_ns = 0

    def now(self) -> Moment:
        """The moment of the entry that is written."""
        self.now_ns += 1_000
        return Moment(self.now_ns, self.now_ns)


class Rewritten:
    """A trace, as the journal of a run."""

    def __init__(self, home: Path) -> None:
        self.clock, self.messages = RecordedClock(), []
        self.store = Store.open(home, create=True)
        self.writer = self.store.writer()
        directory = run_dir(home, RunId(RUN))
        self.lease = Lease.acquire(directory)
        self.journal = Journal.open(directory, self.lease, create=True, clock=self.clock)

    def write(self, header: dict[str, Any], turns: list[dict[str, Any]]) -> None:
        """All of it."""
        self.clock.now_ns = _ns(header["started_at"])
        started = Started(RUN, header["name"], b"/home/you/humanize", "w", Lineage(RUN, None))
        self.journal.append(started, turn=0)
        for turn in turns:
            self.turn(turn)
        self.journal.append(Labelled(FIXED, "fixed"), turn=FIXED)
        self.journal.append(Ended(header["status"], 1.0), turn=turns[-1]["turn"])
        self.writer.sync()
        self.journal.sync()
        self.journal.close()
        self.lease.release()
        self.store.close()

    def turn(self, turn: dict[str, Any]) -> None:
        """A turn: what was asked and answered, what was done, what it came to."""
        number = turn["turn"]
        self.clock.now_ns = max(self.clock.now_ns, _ns(turn["started_at"]))
        if number:
            self.journal.append(TurnOpened(number, number - 1), turn=number)
        for asked in turn.get("models", ()):
            self.asked(number, asked)
        for at, tool in enumerate(turn.get("tools", ())):
            self.called(number, at, tool)
        files = turn.get("files") or {}
        effects = tuple(Effect(name) for name in turn.get("verdict", ()) if name != "none")
        verdict = Verdict(
            effects,
            tuple(turn.get("evidence", ())),
            files.get("added", 0),
            files.get("changed", 0),
            files.get("removed", 0),
        )
        if number:
            self.journal.append(Observed(number, verdict), turn=number)
        protection = Protection(turn["checkpoint"])
        stored = turn.get("bytes_stored", 0)
        root = b"\x00" * 32
        self.journal.append(
            Checkpoint(
                number, 0, root, self.journal.seq, protection, bytes_stored=stored, observer="scan"
            ),
            turn=number,
        )
        self.journal.append(Gated(number, turn["exposed_ms"]), turn=number)

    def asked(self, number: int, asked: dict[str, Any]) -> None:
        """A call of the model."""
        call = CallId("0", asked["name"], number)
        self.messages += [
            {"role": one["role"], "content": one["text"]} for one in asked["request"].get("new", ())
        ]
        ids = [self.writer.put(encode(message)) for message in self.messages]
        listed = build(len(ids), ids, self.writer.put)
        request = Request(call, b"d", Payload(encode([[], {}])), listed, "scripted")
        self.journal.append(request, turn=number)
        self.clock.now_ns += int(asked["wait_ms"] * 1e6)
        reply = {
            name: asked["reply"][name] for name in ("role", "content") if name in asked["reply"]
        }
        self.journal.append(Response(call, asked["wait_ms"], Payload(encode(reply))), turn=number)
        self.messages.append(reply)

    def called(self, number: int, at: int, tool: dict[str, Any]) -> None:
        """A call of a tool."""
        call = CallId("0", tool["name"], number * 10 + at)
        arguments = Payload(encode([[], tool["arguments"]]))
        self.journal.append(Intent(call, b"d", arguments), turn=number)
        self.clock.now_ns += int(tool["duration_ms"] * 1e6)
        output = tool["result"]["output"]
        if isinstance(output, dict):
            output = output["$cut"]["head"] + "\n[...]"
        result = Result(call, tool["duration_ms"], Payload(encode(output)))
        self.journal.append(result, turn=number)
        self.messages.append({"role": "tool", "content": output})


async def picture(home: Path, name: str, keys: tuple[str, ...], there: str) -> str:
    """The interface after some keys, as SVG."""
    app = CrabApp(home, RUN, FIXED)
    async with app.run_test(size=SIZES[name]) as pilot:
        await _until(pilot, f"{RUN}")
        await pilot.pause(0.5)
        await pilot.press(*keys)
        await _until(pilot, there)
        await pilot.pause(0.5)
        svg = app.export_screenshot(title=f"crab tui {RUN}", simplify=True)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # nothing from the network
    svg = re.sub(r"Fira Code,?\s*", "ui-monospace, Menlo, Consolas, ", svg)
    return re.sub(r"terminal-\d+", "terminal", svg)


async def _until(pilot: Any, word: str) -> None:
    for _ in range(1000):
        strips = pilot.app.screen._compositor.render_strips()  # noqa: SLF001 - what is on the screen
        if word in "\n".join(strip.text for strip in strips):
            return
        await pilot.pause(0.02)
    raise TimeoutError(word)


def _ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)


def main() -> None:
    """Make both."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    header, *turns = map(msgspec.json.decode, TRACE.read_bytes().splitlines())
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "store"
        Rewritten(home).write(header, turns)
        for file, keys, there in (
            ("tui-timeline.svg", (), "edit_file(path"),
            ("tui-turn.svg", ("D", "enter", "3"), "abs_bytes"),
        ):
            (HERE / file).write_text(asyncio.run(picture(home, file, keys, there)))


if __name__ == "__main__":
    main()
