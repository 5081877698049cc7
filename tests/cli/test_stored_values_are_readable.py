import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.errors import Damaged
from crabrt.runtime.codec import Codecs
from crabrt.runtime.requests import Binder, ask
from crabrt.timeline import values
from crabrt.timeline.safe_text import safe_text

_LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=8) | st.sampled_from(["$crab", "tuple", "args", "kwargs"])
)  # fmt: skip
_KEYS = st.sampled_from(["$crab", "args", "kwargs", "fields", "choices", "message", "role",
                         "content", "tool_calls", "function", "text"])  # fmt: skip
STORED = st.recursive(
    _LEAVES,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(_KEYS | st.text(max_size=4) | st.integers(0, 9), below, max_size=4)
    ),
    max_leaves=20,
)
"""Anything that msgpack can hold, as an odd or a hostile store may."""


def stored(value):
    return values.decode(msgspec.msgpack.encode(value))


def test_tagged_values_are_shown_without_their_classes():
    value = stored({"when": {"$crab": ["datetime", "2026-01-02"]}, "n": [1, None, True]})
    assert values.readable(value) == '{"when": datetime("2026-01-02"), "n": [1, null, true]}'


def test_a_call_is_shown_as_a_call_however_its_arguments_were_bound():
    assert values.call_text("sh", stored([["make"], {"retries": 2}])) == 'sh("make", retries=2)'
    assert values.call_text("sh", stored({"command": "ls"})) == 'sh(command="ls")'
    marked = [{"$crab": ["tuple", ["a"]]}, {"b": 1}]
    assert values.call_text("sh", stored(marked)) == 'sh("a", b=1)'


def bound(function, *args, **kwargs):
    """A call as the runtime stores it."""
    return values.decode(ask(Codecs(), Binder(function).bind(args, kwargs)).arguments)


def test_a_parameter_called_args_or_kwargs_is_one_like_any_other():
    def takes_args(args): ...

    def takes_both(args, kwargs): ...

    for given_, shown in (("make", '"make"'), ({"a": 1}, '{"a": 1}'), (5, "5"), (["x"], '["x"]'),
                          (None, "null"), ("", '""')):  # fmt: skip
        stored_ = bound(takes_args, given_)
        assert values.call_text("go", stored_) == f"go(args={shown})"
        assert values.arguments(stored_) == ([], {"args": given_})
    both = bound(takes_both, ["x"], {"y": 1})
    assert values.call_text("go", both) == 'go(args=["x"], kwargs={"y": 1})'
    assert values.call_text("go", stored({"kwargs": 7})) == "go(kwargs=7)"


def test_what_was_given_by_position_alone_is_shown_so():
    def takes_any(*args, **kwargs): ...

    def takes_one(first, *args): ...

    def takes_none(): ...

    assert values.call_text("go", bound(takes_any, "a", 2, b=3)) == 'go("a", 2, b=3)'
    assert values.call_text("go", bound(takes_any)) == "go()"
    assert values.call_text("go", bound(takes_none, "too", "many")) == 'go("too", "many")'
    assert values.call_text("go", bound(takes_one, 1, 2)) == "go(first=1, args=tuple([2]))"


def test_what_could_not_be_encoded_is_named_and_no_parameter():

    shown = values.call_text("go", stored({"$crab": ["unencodable", "dict"]}))
    assert shown == 'go(unencodable("dict"))'


@given(STORED)
def test_whatever_a_store_holds_is_shown_safely_or_said_to_be_damaged(value):
    try:
        data = values.decode_to_show(msgspec.msgpack.encode(value))
    except Damaged:
        return
    positional, named = values.arguments(data)
    texts = [values.call_text("go", data), values.readable(data), *values.message_text(data)]
    texts += [values.readable(one) for one in (*positional, *named.values())]
    assert all(isinstance(name, str) for name in named)
    assert all(safe_text(text, lines=True) == text for text in texts)
    msgspec.json.encode(values.jsonable(data))


@pytest.mark.parametrize("depth", [299, 301, 320, 480])
def test_what_is_nested_deep_is_cut_and_not_fallen_over(depth):
    value = "sk-abcdefghijklmnop1234"
    for _ in range(depth):
        value = [value]
    data = values.decode_to_show(msgspec.msgpack.encode({"args": value}))
    text = values.call_text("go", data, 10_000)
    assert text.startswith("go(args=[[[")
    assert "sk-abc" not in text + str(values.jsonable(data)) + values.message_text(data)[1]


def test_a_message_shows_its_text_and_its_tool_calls():
    role, text = values.message_text(
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "so\x1b[2J"}],
            "tool_calls": [{"id": "1", "function": {"name": "sh", "arguments": '{"c": 1}'}}],
        }
    )
    assert role == "assistant"
    assert text == 'so\\x1b[2J\n-> sh({"c": 1})'


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
    assert values.message_text(reply) == ("assistant", "so\n-> sh({})")
