"""What a turn reached on the network: when it asks, about which moments, and who looks.

The loop's own process talks to the model all the time; its connections count only while a tool
runs and no model is asked. So a run remembers when tools ran (`TurnMachine.tools`), its engine when
models were asked (`Engine.models`): a child run's are its parent's as well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from crabrt.inspector.network import Interval, Network

if TYPE_CHECKING:
    from crabrt.runtime.engine import Engine
    from crabrt.runtime.turns import TurnMachine


class Asked(msgspec.Struct, frozen=True):
    """The question of one checkpoint.

    Attributes:
        interval: from the end of the turn before until it was asked.
        sharpened: how often the turn that ends with it had the observer look closer.
    """

    interval: Interval
    sharpened: int = 0


class Reaching:
    """The questions of one run. The caller holds the run's lock, except for `sharpen`.

    Args:
        engine: whose network observer is asked.
        machine: knows the turn.
    """

    def __init__(self, engine: Engine, machine: TurnMachine) -> None:
        self._engine = engine
        self._machine = machine
        self._sharpened: list[bool] = []
        self._begin_ns = time.monotonic_ns()

    def sharpen(self) -> None:
        """A call taken for external is to follow: until its turn is over, look closer."""
        self._sharpened.append(self._engine.network.sharpen())

    def asked(self, *, ends_turn: bool) -> Asked:
        """What a checkpoint asks, of the turn until now. What comes next is the next turn's."""
        begin_ns, end_ns = self._begin_ns, time.monotonic_ns()
        sharpened = self._sharpened
        if ends_turn:
            self._sharpened, self._begin_ns = [], end_ns
        return Asked(
            Interval(
                begin_ns,
                end_ns,
                tools=self._machine.tools.since(begin_ns),
                models=self._engine.models.since(begin_ns),
                local=all(sharpened) and bool(sharpened),
            ),
            len(sharpened) if ends_turn else 0,
        )


def look(engine: Engine, asked: Asked | None) -> Network:
    """The answer; nothing was watched if nobody asked (the loop ran in another process then)."""
    if asked is None:
        return Network(why_not="another process made the turn")
    return engine.network.look(asked.interval)


def answered(engine: Engine, asked: Asked | None) -> None:
    """The checkpoint is through, whatever came of it: no need to look that close any more."""
    for _ in range(asked.sharpened if asked is not None else 0):
        engine.network.blunt()
