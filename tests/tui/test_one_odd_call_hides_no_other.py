"""A call that cannot be shown is said to be one, and what stands beside it is shown."""

from __future__ import annotations

import pytest

from crabrt.core.content import Content
from crabrt.core.entries import CallId, Intent, Payload, Request, Response
from crabrt.core.ids import object_id
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.reader import RunReader
from crabrt.tui.pieces import plain
from crabrt.tui.turn_text import call_titles, calls, messages

LOST = Content(3, 0, (object_id(b"nowhere"),))


@pytest.fixture
def turn(run, staging):
    """A reader, and a turn with two requests and two calls, the first of each without its text."""
    call = run.begin()
    run.answer(call)
    for at, payload in enumerate(
        (Payload(content=LOST), Payload(staging.encode({"args": {"n": 1}})))
    ):
        asked, called = CallId("0", f"think-{at}", 70), CallId("0", f"odd-{at}", 70)
        run.say(Request(asked, b"d", Payload(staging.encode({})), LOST if at == 0 else None))
        run.say(Response(asked, 1.0, Payload(staging.encode(f"reply {at}"))))
        run.say(Intent(called, b"d", payload))
    run.checkpoint(run.turns)
    with RunFeed(run.home, run.run) as feed:
        row = feed.read_all().rows.at(run.turns)
    return RunReader(run.store, run.run), row


def shown(lines):
    return [plain(line) for line in lines]


def test_in_the_list_of_calls(turn):
    reader, row = turn
    lines = shown(calls(reader, row))
    assert any(line.startswith("! odd-0: cannot be shown: ") for line in lines)
    assert any(line.startswith('odd-1(args={"n": 1})') for line in lines)
    titles = shown(call_titles(reader, reader.detail(row.view).calls))
    assert len(titles) == len(reader.detail(row.view).calls)
    assert titles[-1].endswith('odd-1(args={"n": 1})')


def test_among_the_messages(turn):
    reader, row = turn
    lines = shown(messages(reader, row))
    assert any(line.startswith("! think-0: cannot be shown: ") for line in lines)
    assert "  reply 1" in lines


def test_a_mistake_of_ours_is_told_as_one(turn, monkeypatch):
    reader, row = turn
    title = RunReader.title

    def fails(self, call, limit=200):
        if call.call.callable == "odd-1":
            raise TypeError("nobody thought of that")
        return title(self, call, limit)

    monkeypatch.setattr(RunReader, "title", fails)
    lines = shown(calls(reader, row))
    told = (
        "! odd-1: cannot be shown: unexpected TypeError: nobody thought of that (a bug in crabrt)"
    )
    assert told in lines
