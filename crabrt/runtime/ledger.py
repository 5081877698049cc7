"""What a run writes down: entries and values, on a disk that may fail and come back.

Nothing here raises into the user's loop for want of a store: what cannot be written is a loss,
which the loop is told of. Once the journal can be written again, it is made up for or told of there
(`unwritten`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from crabrt.core.entries import Body, CallId, Payload
from crabrt.errors import CrabError
from crabrt.journal import Journal, Lease
from crabrt.runtime.engine import Engine
from crabrt.runtime.losses import Losses, UnprotectedWarning
from crabrt.runtime.payloads import put_payload
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.turns import TurnMachine
from crabrt.runtime.unwritten import Unwritten

T = TypeVar("T")


class Ledger:
    """A run's journal and writer, as its calls use them.

    Attributes:
        engine, journal, lease: what it works with.
        lock: guards the order of entries that belong together; held for microseconds.
        machine: where the run stands.
        losses: what was lost so far.
        ended: whether the run is over in this process.
    """

    def __init__(self, engine: Engine, journal: Journal, lease: Lease) -> None:
        self.engine = engine
        self.journal = journal
        self.lease = lease
        self.lock = threading.RLock()
        self.machine = TurnMachine()
        self.losses = Losses(strict=engine.config.strict)
        self.ended = False
        self._unwritten = Unwritten()

    @property
    def inert(self) -> bool:
        """Nothing is recorded any more: the run is over, or this is a forked child."""
        return self.ended or self.lease.inert

    def append(self, body: Body, *, turn: int | None = None) -> bool:
        """Journal `body` under the open turn, or `turn`; what it names goes to the system first.

        A run whose journal cannot be written goes on unprotected (or raises, if strict). Once it
        can be written again, a note says that entries are missing, unless all of them are of calls
        that did nothing: a resume must not take what follows for the whole story.

        Returns:
            Whether it was written.
        """
        with self.lock:
            of_turn = self.machine.turn if turn is None else turn
            try:
                self.engine.writer.flush()
                self.settle_gap(body)
                self.journal.append(body, turn=of_turn)
            except (CrabError, OSError) as error:
                self._unwritten.add(body, of_turn, error)
                self.degrade(str(error))
                return False
            return True

    def settle_gap(self, coming: Body | None = None) -> None:
        """Journal what is missing, or that entries are, if some are; `coming` follows.

        Raises:
            CrabError: the journal still cannot be written.
        """
        with self.lock:
            self._unwritten.settle(self.journal, self.machine.turn, coming)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The span from putting what an entry names to the entry itself: gc keeps it meanwhile.

        Holds `lock`, so that entries that belong together stay together.
        """
        with self.lock, ExitStack() as span:
            try:
                span.enter_context(self.engine.writer.commit())
            except (CrabError, OSError) as error:
                self.degrade(str(error))
            yield
            try:
                span.close()
            except (CrabError, OSError) as error:
                self.degrade(str(error))

    def value(self, encode: Callable[[], bytes], call: CallId | None = None) -> Payload:
        """What `encode` gives, as a payload; where it cannot be encoded, one that says why.

        The loop is told of the first such result of each function that is called: at a resume it
        is too late.
        """
        try:
            return self.payload(encode())
        except NotEncodable as error:
            if call is not None:
                name = call.callable
                what = f"what {name} gave cannot be stored, and no resume goes past it: {error}"
                self.losses.mention(what, UnprotectedWarning, once=f"value of {name}")
            return Payload(missing=str(error))

    def payload(self, data: bytes) -> Payload:
        """`data` as a payload; where it cannot be stored, a payload that says so."""
        payload = self.stored(lambda: put_payload(data, self.engine.writer))
        return payload if payload is not None else Payload(missing="the store could not be written")

    def stored(self, put: Callable[[], T]) -> T | None:
        """What `put` stored, or None where it could not be."""
        try:
            return put()
        except (CrabError, OSError) as error:
            self.degrade(str(error))
            return None

    def degrade(self, reason: str) -> None:
        """Something could not be recorded; the loop is told at its next gate."""
        self.losses.add(f"turn {self.machine.turn} is not recorded: {reason}")
