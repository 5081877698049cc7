import msgspec
import pytest

from crabrt.cli import values
from crabrt.errors import Damaged


def stored(value):
    return values.decode(msgspec.msgpack.encode(value))


def test_tagged_values_are_shown_without_their_classes():
    value = stored({"when": {"$crab": ["datetime", "2026-01-02"]}, "n": [1, None, True]})
    assert values.readable(value) == '{"when": datetime("2026-01-02"), "n": [1, null, true]}'


def test_a_call_is_shown_as_a_call_however_its_arguments_were_bound():
    assert values.call_text("sh", stored([["make"], {"retries": 2}])) == 'sh("make", retries=2)'
    assert values.call_text("sh", stored({"args": ["make"], "kwargs": {}})) == 'sh("make")'
    assert values.call_text("sh", stored({"command": "ls"})) == 'sh(command="ls")'
    marked = [{"$crab": ["tuple", ["a"]]}, {"b": 1}]
    assert values.call_text("sh", stored(marked)) == 'sh("a", b=1)'


def test_a_message_shows_its_text_and_its_tool_calls():
    role, text = values.message_text(
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "so\x1b[2J"}],
            "tool_calls": [{"id": "1", "function": {"name": "sh", "arguments": '{"c": 1}'}}],
        },
        full=False,
    )
    assert role == "assistant"
    assert text == 'so\\x1b[2J\n-> sh({"c": 1})'


def test_long_texts_are_cut_with_a_note_unless_all_is_asked_for():
    text = "x" * (values.SHOWN_CHARS + 5)
    assert values.readable(text).endswith("[5 more characters: --full]")
    assert values.readable(text, full=True) == text


def test_bytes_become_json():
    assert values.jsonable(stored({"raw": b"\xff"})) == {"raw": {"$crab": ["base64", "/w=="]}}


def test_garbage_and_nesting_without_end_are_typed_errors_or_marked():
    with pytest.raises(Damaged):
        values.decode(b"\xc1")
    with pytest.raises(Damaged):
        values.decode(b"\x91" * 100_000 + b"\xc0")
    deep = None
    for _ in range(400):
        deep = [deep]
    assert "…" in values.readable(deep)
    assert "nested too deep" in str(values.jsonable(deep))


def test_tokens_in_what_is_shown_are_redacted_and_the_stored_value_is_not():
    data = msgspec.msgpack.encode({"out": ["key: sk-abcdefghijklmnop1234"]})
    assert values.decode_to_show(data) == {"out": ["key: [redacted]"]}
    assert values.decode(data) == {"out": ["key: sk-abcdefghijklmnop1234"]}


def test_a_completion_of_nested_objects_reads_as_its_message():
    def held(name, /, **fields):
        return {"$crab": [name, {"fields": fields, "set": [], "extra": None, "private": None}]}

    call = held("Call", id="1", function=held("Function", name="sh", arguments="{}"))
    message = held("Message", role="assistant", content="so", tool_calls=[call])
    reply = stored(held("Completion", choices=[held("Choice", message=message)]))
    assert values.message_text(reply, full=False) == ("assistant", "so\n-> sh({})")
