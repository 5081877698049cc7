"""Values on their way into a trace: nothing secret, nothing endless, and back again."""

import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from crabrt.traces import values

TOKEN = "ghp_" + "a1B2" * 9


def test_a_cut_text_keeps_length_digest_beginning_and_end():
    text = "".join(chr(97 + i % 26) for i in range(5_000))
    cut = values.cut_text(text, 1_000)["$cut"]
    assert cut["chars"] == 5_000
    assert cut["blake3"] == blake3(text.encode()).hexdigest()
    assert text.startswith(cut["head"])
    assert text.endswith(cut["tail"])
    assert len(cut["head"]) + len(cut["tail"]) == 1_000
    assert values.cut_text("short", 1_000) == "short"


def test_a_value_of_ten_thousand_parts_is_cut_as_a_whole():
    cut = values.cut(list(range(100_000)), 500)
    assert len(json.dumps(cut)) < 1_000
    assert values.is_cut(cut)
    assert not values.is_cut({"a": [1, "b"]})


def test_secrets_go_before_anything_is_cut():
    told = values.without_tokens({"api_key": "k", "text": f"use {TOKEN} now", "n": [TOKEN]})
    assert TOKEN not in json.dumps(told)
    assert told["api_key"] == "[redacted]"
    assert told["text"] == "use [redacted] now"


def test_what_was_left_out_has_a_length_and_no_digest():
    assert values.left_out("secret") == {"$out": {"chars": 6}}
    assert values.left_out(None) is None
    assert values.is_cut(values.left_out("secret"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_arguments_come_back_as_they_were(value):
    there = json.loads(json.dumps(values.jsonable(value)))
    if "$crab" not in json.dumps(list(_keys(value))):
        assert values.revive(there) == value


def _keys(value):
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def test_a_name_that_is_not_utf8_comes_back():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert values.revive(values.jsonable({"path": name})) == {"path": name}


@pytest.mark.parametrize("mark", [[], ["str"], ["base64", "?"], "x", ["base64", "A"]])
def test_malformed_marks_are_refused(mark):
    with pytest.raises(ValueError):
        values.revive({"$crab": mark})


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("cat /work/app/x", "cat /workspace/x"),
        ("cd /work/app && ls", "cd /workspace && ls"),
        ("gcc -I/work/app/include", "gcc -I/workspace/include"),
        ("file:///work/app/a", "file:///workspace/a"),
        ("cat '/work/app'", "cat '/workspace'"),
        ("ls /work/app.", "ls /workspace."),
        ("cat /work/app2/x /work/app.old", "cat /work/app2/x /work/app.old"),
        ("cat /srv/work/app/x", "cat /srv/work/app/x"),
        ("git log --author=ann@corp.test", "git log --author=user@example.com"),
    ],
)
def test_places_and_people_are_renamed_where_they_are_meant(text, renamed):
    assert values.Renaming([("/work/app", "/workspace"), ("", "x")])(text) == renamed
