"""Somebody sets the wall clock, back or forward, in the middle of a run: no change is missed.

The clock of the machine is everybody's, so what is stepped here is what crabrt reads of it: the
kernel's stamps stay as they are, and are then from the future, or from long ago.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import crabrt
from crabrt.store import Store
from crabrt.testing.oracle import digest
from crabrt.workspace import early, early_reader, files, mapped, restore_to, stamps, tracker

HOUR_NS = 3_600_000_000_000


class Clock:
    """The clocks as this process reads them, `step_ns` away from the kernel's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step_ns = 0
        for module in (files, mapped, early_reader):
            monkeypatch.setattr(module, "tick_ns", lambda: stamps.tick_ns() + self.step_ns)
        for module in (tracker, early):
            monkeypatch.setattr(
                module, "clock_offset_ns", lambda: stamps.clock_offset_ns() + self.step_ns
            )


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    "observer", ["scan", pytest.param("fanotify", marks=pytest.mark.root)], ids=str
)
@pytest.mark.parametrize("first_ns", [-HOUR_NS, HOUR_NS], ids=["back first", "forward first"])
def test_every_change_round_a_step_is_seen_and_nothing_else(
    ws: Path, store, clock: Clock, observer: str, first_ns: int
) -> None:
    for name in ("a", "b", "c"):
        (ws / name).write_bytes(b"0" * 100)
    steps = [0, first_ns, first_ns, first_ns, 0, 0, -first_ns, -first_ns, 0]
    states: dict[int, str] = {}
    with crabrt.open_run(workspace=ws, name="steps", observer=observer) as run:
        for number, step_ns in enumerate(steps, 1):
            run.model_call([{"role": "user", "content": str(number)}], lambda: "ok")
            states[number - 1] = digest(ws)
            clock.step_ns = step_ns
            run.tool_call("edit", {}, lambda number=number: edit(ws, number))
        states[len(steps)] = digest(ws)
    turns = {turn.turn: turn for turn in store.turns()}
    for number in range(1, len(steps) + 1):
        changed = states[number] != states[number - 1]
        assert (turns[number].verdict == ("files",)) is changed, turns[number].evidence
        assert changed is bool(number % 3)
    with Store.open(store.home) as objects:
        for number, state in states.items():
            restore_to(objects, turns[number].root, ws.parent / f"turn {number}")
            assert digest(ws.parent / f"turn {number}") == state


def edit(ws: Path, number: int) -> None:
    """Other bytes, the same size, and the times that were there; every third turn does nothing."""
    if number % 3 == 0:
        return
    path = ws / "abc"[number % 3]
    status = path.stat()
    path.write_bytes(b"%d" % (number % 10) * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
