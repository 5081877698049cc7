"""What the journal's tests share: a run on disk, and short words for what they do to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crabrt.core.entries import (
    CallId,
    Captured,
    Checkpoint,
    Intent,
    Lineage,
    Noted,
    Observed,
    Payload,
    Request,
    Response,
    Result,
    Started,
    TurnOpened,
)
from crabrt.core.verdicts import Effect, Protection, Verdict
from crabrt.journal import Journal, Lease, read_journal, run_dir


class Run:
    """One run in a store of its own."""

    def __init__(self, home: Path, run: str = "fixer-1") -> None:
        self.home = home
        self.id = run
        self.directory = run_dir(home, run)
        self.lease = None
        self.journal = None

    def open(self, **options):
        self.lease = Lease.acquire(self.directory)
        self.journal = Journal.open(self.directory, self.lease, create=True, **options)
        return self.journal

    def close(self):
        if self.journal is not None:
            self.journal.close()
        if self.lease is not None:
            self.lease.release()

    def note(self, text, turn=0):
        return self.journal.append(Noted("t", text), turn=turn)

    def texts(self):
        return [r.body.text for r in read_journal(self.directory) if isinstance(r.body, Noted)]

    def segments(self):
        return sorted((self.directory / "journal").glob("*.seg"))

    def start(self, name="fixer", workspace="w1"):
        self.journal.append(Started(self.id, name, b"/w", workspace, Lineage(self.id)), turn=0)
        self.commit(0, b"\0" * 32)

    def commit(self, turn, root, *, inner=0, protection=Protection.DURABLE, position=None):
        at = self.journal.seq if position is None else position
        if turn and not inner:
            verdict = Verdict((Effect.FILES,), ("files: a",), 1, 2, 3, (b"a",))
            self.journal.append(Observed(turn, verdict), turn=turn)
        self.journal.append(Captured(turn, inner, root, at), turn=turn)
        return self.journal.append(
            Checkpoint(turn, inner, root, at, protection, bytes_stored=10), turn=turn
        )

    def turn(self, turn, *, root=None, base=None):
        """A whole turn: a model call, a tool call, a checkpoint."""
        think, sh = CallId("0", "think", turn), CallId("0", "sh", turn)
        payload = Payload(inline=b"x")
        add = self.journal.append
        add(TurnOpened(turn, turn - 1 if base is None else base), turn=turn)
        add(Request(think, b"d", payload, None, "m"), turn=turn)
        add(Response(think, 5.0, payload, tokens_in=7, tokens_out=2, cost_usd=0.5), turn=turn)
        add(Intent(sh, b"d", payload), turn=turn)
        add(Result(sh, 3.0, payload), turn=turn)
        return self.commit(turn, os.urandom(32) if root is None else root)


@pytest.fixture
def run(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    one = Run(home)
    yield one
    one.close()


@pytest.fixture
def make_run(tmp_path):
    made = []

    def make(name, home=None):
        where = home or tmp_path / "home"
        where.mkdir(exist_ok=True)
        made.append(Run(where, name))
        return made[-1]

    yield make
    for one in made:
        one.close()
