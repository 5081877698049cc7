"""What the timeline's tests share: a run that is nothing but a journal, and one with files."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import msgspec
import pytest

from crabrt.core.entries import (
    CallId,
    Captured,
    Checkpoint,
    Ended,
    External,
    Gated,
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
from crabrt.core.verdicts import Effect, Prior, Protection, Verdict
from crabrt.journal import Journal, Lease, RunIndex, run_dir
from crabrt.timeline.feed import RunFeed

encode = msgspec.msgpack.encode


class Told:
    """A run that is a journal alone: what a loop would have written, without the loop."""

    def __init__(self, home: Path, run: str = "fixer-1", *, parent: str | None = None) -> None:
        self.home, self.run = home, run
        self.directory = run_dir(home, run)
        self.lineage = Lineage(parent or run, parent)
        self.journal = self.lease = None
        self.turns = 0

    def open(self, **options):
        self.lease = Lease.acquire(self.directory)
        self.journal = Journal.open(self.directory, self.lease, create=True, **options)
        return self

    def close(self):
        """As if the process were gone."""
        if self.journal is not None:
            self.journal.close()
            self.lease.release()
            self.journal = None

    def say(self, body, turn=None):
        return self.journal.append(body, turn=self.turns if turn is None else turn)

    def start(self, workspace="w1"):
        self.say(Started(self.run, "fixer", b"/w", workspace, self.lineage), 0)
        self.commit(0)
        return self

    def begin(self, base=None):
        """A turn opens, and asks a model."""
        self.turns += 1
        number = self.turns
        self.say(TurnOpened(number, number - 1 if base is None else base))
        call = CallId("0", "think", number)
        self.say(Request(call, b"d", Payload(encode([[], {}])), None, "scripted"))
        return call

    def answer(self, call, wait_ms=5.0):
        self.say(
            Response(call, wait_ms, Payload(encode("do")), tokens_in=7, tokens_out=2, cost_usd=0.5)
        )

    def act(self, tool="sh", prior=Prior.AUTO):
        call = CallId("0", tool, self.turns)
        external = External() if prior is Prior.EXTERNAL else None
        self.say(Intent(call, b"d", Payload(encode([["make"], {}])), prior, external))
        return call

    def done(self, call, ms=3.0):
        self.say(Result(call, ms, Payload(encode("out"))))

    def turn(self, *, base=None, tool="sh", prior=Prior.AUTO):
        """All of a turn."""
        self.answer(self.begin(base))
        self.done(self.act(tool, prior))
        self.commit(self.turns)
        return self.turns

    def commit(self, number, *, effects=(Effect.FILES,), protection=Protection.DURABLE):
        if number:
            verdict = Verdict(effects, ("seen",), 1, 2, 3, sample=(b"src/app.py",))
            self.say(Observed(number, verdict))
        root = os.urandom(32)
        self.say(Captured(number, 0, root, self.journal.seq))
        self.say(Checkpoint(number, 0, root, self.journal.seq, protection, bytes_stored=100))
        self.say(Gated(number, 1.5))
        self.journal.sync()
        return root

    def note(self, text):
        self.say(Noted("t", text))

    def end(self, status="done"):
        self.say(Ended(status, 1.0))
        self.close()


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "store"
    home.mkdir()
    return home


@pytest.fixture
def told(home):
    made = []

    def make(run="fixer-1", **options):
        made.append(Told(home, run, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def run(told):
    return told().open().start()


@pytest.fixture
def feed(home):
    feeds = []

    def make(run="fixer-1", **options):
        feeds.append(RunFeed(home, run, **options))
        return feeds[-1]

    yield make
    for one in feeds:
        one.close()


@pytest.fixture
def refreshed(home):
    """Bring the index of runs up to date."""

    def refresh():
        with RunIndex.open(home) as index:
            index.refresh()

    return refresh


@pytest.fixture(scope="session")
def builder():
    path = Path(__file__).parents[1] / "operations" / "builder.py"
    spec = importlib.util.spec_from_file_location("crab_test_builder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def until():
    """Poll until a state is as wanted; the state."""

    def wait(feed, wanted, limit_s=20.0):
        end = time.monotonic() + limit_s
        state = feed.poll() or feed.timeline
        while not wanted(state):
            assert time.monotonic() < end, state
            feed.wait(0.2)
            state = feed.poll() or feed.timeline
        return state

    return wait
