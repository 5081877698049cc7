"""What a turn reached on the network: when it asks, about which moments, and who looks.

The loop's own process talks to the model all the time; its connections count only while a tool
runs and no model is asked. So a run remembers when tools ran (`TurnMachine.tools`), its engine when
models were asked (`Engine.models`): a child run's are its parent's as well.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec

from crabrt.inspector.network import Held, Interval, Network

if TYPE_CHECKING:
    from crabrt.runtime.engine import Engine
    from crabrt.runtime.turns import TurnMachine


class Asked(msgspec.Struct, frozen=True):
    """The question of one checkpoint.

    Attributes:
        interval: from the end of the turn before until it was asked.
        sharpened: how often the turn that ends with it had the observer look closer.
        wraps_tools: whether tools are wrapped, so that the interval says when they ran.
    """

    interval: Interval
    sharpened: int = 0
    wraps_tools: bool = True


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
        self._held: list[Held] = []  # calls may begin at once, each notes before it acts
        self._missed = False
        self._lock = threading.Lock()  # of the three: they are filled while the turn may end
        self._begin_ns = time.monotonic_ns()

    def sharpen(self) -> None:
        """A call taken for external is to follow: until its turn is over, look closer."""
        had = self._engine.network.sharpen()
        held = [] if self._held else [self._engine.network.held()]
        with self._lock:
            self._sharpened.append(had)
            self._held += held

    def missed(self) -> None:
        """It did not come about in time: the call is about to begin."""
        with self._lock:
            self._missed = True

    def asked(self, *, ends_turn: bool) -> Asked:
        """What a checkpoint asks, of the turn until now. What comes next is the next turn's."""
        begin_ns, end_ns = self._begin_ns, time.monotonic_ns()
        with self._lock:
            sharpened, held = tuple(self._sharpened), tuple(self._held)
            local = bool(sharpened) and all(sharpened) and not self._missed
            if ends_turn:
                self._sharpened, self._held, self._missed = [], [], False
                self._begin_ns = end_ns
        return Asked(
            Interval(
                begin_ns,
                end_ns,
                tools=self._machine.tools.since(begin_ns),
                models=self._engine.models.since(begin_ns),
                local=local,
                reused=local and any(one.may_have_sent() for one in held),
            ),
            len(sharpened) if ends_turn else 0,
            self._machine.wraps_tools,
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
