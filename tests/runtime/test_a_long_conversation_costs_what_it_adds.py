"""Messages that a run has named before are neither encoded nor stored again, and never mistaken."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pydantic
import pytest
from blake3 import blake3

import crabrt
from crabrt.core.entries import Request
from crabrt.journal import Journal
from crabrt.runtime.codec import Codecs
from crabrt.runtime.messages import Messages
from crabrt.runtime.payloads import read_messages
from crabrt.runtime.requests import ask
from crabrt.store import Store, StoreWriter
from crabrt.store.openpack import OpenPack


@crabrt.model
def think(messages: list) -> dict:
    return {"role": "assistant", "content": "ok"}


def conversation(count: int) -> list:
    return [
        {"role": "assistant", "content": f"step {n}", "tool_calls": [{"id": f"c{n}", "args": [n]}]}
        for n in range(count)
    ]


class Counting:
    """Counts what is encoded and what is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded = self.puts = 0
        encode, put = Codecs.encode_readable, StoreWriter.put

        def counted_encode(codecs, value):
            self.encoded += 1
            return encode(codecs, value)

        def counted_put(writer, *args):
            self.puts += 1
            return put(writer, *args)

        monkeypatch.setattr(Codecs, "encode_readable", counted_encode)
        monkeypatch.setattr(StoreWriter, "put", counted_put)


def told(store) -> list[list[dict]]:
    """The messages of every request of the last run, as they are stored."""
    with Store.open(store.home) as objects:
        return [
            [msgspec.msgpack.decode(raw) for raw in read_messages(body.messages, objects)]
            for body in store.bodies(Request)
        ]


def test_a_request_encodes_and_puts_only_what_it_adds(ws: Path, store, monkeypatch) -> None:
    counting = Counting(monkeypatch)
    messages = conversation(500)
    with crabrt.open_run(workspace=ws):
        think(messages)
        first = counting.encoded, counting.puts
        messages.append(think(messages))
        messages.append({"role": "user", "content": "and now?"})
        before = counting.encoded, counting.puts
        think(messages)
        added = counting.encoded - before[0], counting.puts - before[1]
    assert min(first) >= 500
    assert max(added) < 20
    assert told(store) == [messages[:500], messages[:500], messages]


def test_helpers_in_between_do_not_make_it_forget(ws: Path, store, monkeypatch) -> None:
    counting = Counting(monkeypatch)
    messages = conversation(500)
    with crabrt.open_run(workspace=ws):
        think(messages)
        for n in range(100):
            think([{"role": "user", "content": f"is {n} even?"}])
        before = counting.puts
        think(messages)
        assert counting.puts - before < 20
    assert told(store)[-1] == messages


def test_a_message_changed_in_place_is_another_message(ws: Path, store) -> None:
    messages = conversation(3)
    with crabrt.open_run(workspace=ws):
        think(messages)
        messages[1]["tool_calls"][0]["args"][0] = "other"
        think(messages)
    assert [one[1]["tool_calls"][0]["args"] for one in told(store)] == [[1], ["other"]]
    first, second = (body.digest for body in store.bodies(Request))
    assert first != second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], (1,)),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (b"x", bytearray(b"x")),
        ("é", "e\u0301"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1}, frozenset({1})),
    ],
)
def test_values_that_look_alike_are_stored_as_what_they_are(one: object, other: object) -> None:
    codecs = Codecs()
    known = Messages(codecs)
    for value in (one, other, one):
        message = {"role": "user", "content": value}
        read = known.read([message])
        assert read is not None
        assert read[0].encoded == codecs.encode_readable(message)


def test_messages_of_a_class_are_told_apart_and_put_once(ws: Path, store, monkeypatch) -> None:
    class Said(msgspec.Struct):
        role: str
        content: str

    counting = Counting(monkeypatch)
    messages = [Said("user", f"{n}") for n in range(50)]
    with crabrt.open_run(workspace=ws):
        think(messages)
        before = counting.puts
        messages[7].content = "seven"
        think(messages)
        assert counting.puts - before < 10
    first, second = store.bodies(Request)
    assert first.digest != second.digest
    assert first.messages.ids[:7] == second.messages.ids[:7]
    assert first.messages.ids[7] != second.messages.ids[7]


class Part(pydantic.BaseModel):
    text: str


class Spoken(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    role: str
    content: list[Part | dict] | None = None


class Whispered(Spoken):
    pass


def test_messages_that_are_models_are_known_by_their_state(ws: Path, store, monkeypatch) -> None:
    counting = Counting(monkeypatch)
    messages = [Spoken(role="user", content=[Part(text=f"{n}")]) for n in range(50)]
    changes = [
        lambda message: setattr(message.content[0], "text", "other"),
        lambda message: setattr(message, "beside", 1),
        lambda message: message.content.append({"text": "more"}),
    ]
    with crabrt.open_run(workspace=ws):
        think(messages)
        before = counting.encoded
        think(messages)
        assert counting.encoded - before < 10
        for n, change in enumerate(changes):
            change(messages[n])
            think(messages)
        messages[9] = Whispered(role="user", content=messages[9].content)
        think(messages)
    ids = [body.messages.ids for body in store.bodies(Request)]
    assert ids[0] == ids[1]
    for n, at in enumerate([0, 1, 2, 9]):
        assert [i for i in range(50) if ids[n + 1][i] != ids[n + 2][i]] == [at]


def test_the_digest_is_that_of_what_the_model_sees() -> None:
    """As it was defined before messages were remembered: journals are compared with it."""
    codecs = Codecs()
    messages = [
        {"content": "hi", "role": "user", "time": 1.5},
        {"role": "tool", "content": {"b": 1, "a": ("x",)}, "name": None},
        *conversation(20),
    ]
    named = {"messages": messages, "model": "m", "tools": [{"b": 1, "a": 2}], "temperature": 1}
    seen = {
        "messages": [{k: v for k, v in m.items() if k != "time" and v} for m in messages],
        "model": "m",
        "tools": named["tools"],
    }
    plain = msgspec.msgpack.decode(codecs.encode_readable(seen))
    wanted = blake3(msgspec.msgpack.Encoder(order="sorted").encode(plain)).digest(16)
    known = Messages(codecs)
    for _ in range(2):
        assert ask(codecs, named, known=known).digest == wanted


def test_what_a_failing_disk_lost_is_put_again(ws: Path, store, monkeypatch) -> None:
    messages, failed = conversation(100), []

    def full(pack: OpenPack) -> None:
        failed.append(pack)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def loop() -> None:
        with crabrt.open_run(workspace=ws) as run:
            with monkeypatch.context() as broken:
                broken.setattr(OpenPack, "write_out", full)
                think(messages)
            run.tool_call("look", {}, lambda: None)
            think(messages)
            think(messages)

    with pytest.warns(crabrt.UnprotectedWarning):
        loop()
    assert failed
    assert told(store)[-1] == messages


def test_a_request_that_was_not_written_names_nothing(ws: Path, store, monkeypatch) -> None:
    messages, append = conversation(100), Journal.append
    counting = Counting(monkeypatch)

    def refusing(journal, body, **kwargs):
        if isinstance(body, Request):
            raise crabrt.StoreUnavailable("no room")
        return append(journal, body, **kwargs)

    def loop() -> int:
        with crabrt.open_run(workspace=ws):
            with monkeypatch.context() as broken:
                broken.setattr(Journal, "append", refusing)
                think(messages)
            before = counting.puts
            think(messages)
            return counting.puts - before

    with pytest.warns(crabrt.UnprotectedWarning):
        assert loop() >= 100
    assert told(store)[-1] == messages
