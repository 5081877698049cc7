"""A run that is a journal alone: what a loop would have written, as fast as it can be written."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from crabrt.core.entries import (
    CallId,
    Captured,
    Checkpoint,
    Ended,
    Gated,
    Intent,
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

_encode = msgspec.msgpack.encode


class Written:
    """See the module. Nothing is durable before `sync`."""

    def __init__(self, home: Path, run: str) -> None:
        self.run = run
        directory = run_dir(home, RunId(run))
        self._lease = Lease.acquire(directory)
        self._journal = Journal.open(directory, self._lease, create=True)
        self._turns = 0
        self._journal.append(Started(run, run, b"/workspace", "w", Lineage(run, None)), turn=0)
        self._commit(0)

    def turn(self, tool: str) -> None:
        """All of a turn, with one call of `tool`; not synced."""
        self._turns += 1
        number, append = self._turns, self._journal.append
        append(TurnOpened(number, number - 1), turn=number)
        asked, call = CallId("0", "think", number), CallId("0", tool, number)
        append(Request(asked, b"d", Payload(_encode([[], {}])), None, "model"), turn=number)
        append(Response(asked, 900.0 + number % 700, Payload(_encode("do it"))), turn=number)
        append(Intent(call, b"d", Payload(_encode([["make test"], {}]))), turn=number)
        append(Result(call, 50.0 + number % 300, Payload(_encode("ok"))), turn=number)
        self._commit(number)

    def sync(self) -> None:
        """Make it durable."""
        self._journal.sync()

    def end(self) -> None:
        """The run is over."""
        self._journal.append(Ended("done", 1.0), turn=self._turns)
        self._journal.sync()
        self._journal.close()
        self._lease.release()

    def _commit(self, number: int) -> None:
        root, append = os.urandom(32), self._journal.append
        if number:
            verdict = Verdict((Effect.FILES,) if number % 3 else (), ("seen",), 0, number % 3, 0)
            append(Observed(number, verdict), turn=number)
        append(Captured(number, 0, root, self._journal.seq), turn=number)
        append(
            Checkpoint(
                number, 0, root, self._journal.seq, Protection.DURABLE, bytes_stored=number % 5000
            ),
            turn=number,
        )
        append(Gated(number, 0.0), turn=number)
