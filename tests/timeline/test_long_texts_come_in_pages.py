"""A page of a text is safe, whole at its edges, and costs what it shows."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crabrt.core.entries import Payload
from crabrt.errors import Damaged, DamagedObject, UsageError
from crabrt.store.contents import put_bytes
from crabrt.testing.memory import MemoryObjects
from crabrt.timeline import pages
from crabrt.timeline.pages import ShortText, StoredText, text_of
from crabrt.timeline.safe_text import safe_bytes

TOKEN = "sk-" + "a1b2c3d4" * 4


def stored(data, **options):
    objects = MemoryObjects()
    return objects, StoredText(put_bytes(data, objects), objects, **options)


def every(text, limit):
    """A text put together from its pages."""
    parts, start = [], 0
    while True:
        page = text.page(start, limit)
        assert page.start == start
        parts.append(page.text)
        if not page.more:
            return "".join(parts)
        assert page.end > start
        start = page.end


@given(st.text(max_size=300), st.integers(4, 40))
def test_pages_put_together_are_the_text(text, limit):
    data = text.encode("utf-8", "surrogatepass")
    assert every(stored(data, redact=False)[1], limit) == safe_bytes(data, lines=True)
    assert every(ShortText(text), limit) == text


@given(st.binary(max_size=300), st.integers(4, 40))
def test_bytes_that_are_no_text_lose_nothing(data, limit):
    text = every(stored(data, redact=False)[1], limit)
    assert text.isprintable() or set(text) & set("\n\t")


def test_a_page_ends_behind_a_line_where_one_is_near():
    data = b"first line\nsecond line\nthird line\n"
    assert stored(data)[1].page(0, 25).text == "first line\nsecond line\n"
    assert ShortText(data.decode()).page(0, 25).text == "first line\nsecond line\n"


def test_control_bytes_are_shown_and_never_given_as_they_are():
    hostile = "ok \x1b]0;title\x07\x1b[2J\u202ereversed\u2066 \x9b31m".encode() + b"\xff\x9b"
    text = stored(hostile)[1].page().text
    assert text.isprintable()
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    assert "\\xff" in text


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(8, 50))
def test_a_token_on_the_edge_of_pages_is_seen_on_neither(before, limit):
    data = b"x" * before + b" " + TOKEN.encode() + b" rest of it"
    _, text = stored(data)
    whole = every(text, limit)
    for length in range(4, len(TOKEN)):
        assert TOKEN[-length:] not in whole
        assert TOKEN[: length + 3] not in whole
    assert whole.endswith("rest of it")


def test_all_pages_at_once_are_the_same_text_and_hide_the_same(monkeypatch):
    monkeypatch.setattr(pages, "PAGE", 64)
    monkeypatch.setattr(pages, "_CONTEXT", 128)
    data = ("line of text\n" * 40 + TOKEN + "\n" + "ü" * 300).encode()
    _, text = stored(data)
    whole = "".join(page.text for page in text.pages())
    assert whole == data.decode().replace(TOKEN, "[redacted]")


def test_a_page_of_a_large_value_reads_no_more_than_up_to_it():
    data = msgspec.msgpack.encode("".join(f"line {n}\n" for n in range(1_500_000)))
    assert len(data) > pages.WHOLE_MAX
    objects = MemoryObjects()
    content = put_bytes(data, objects)
    objects.reads = 0
    text = text_of(Payload(content=content), objects)
    assert text.unit == "bytes"
    page = text.page()
    assert page.text.startswith("line 0\nline 1\n")
    assert page.text.endswith("\n")
    assert page.more
    assert objects.reads <= 6  # of some hundred pieces
    assert len(content.ids) > 6 or content.level
    last = text.page(text.total - 20)
    assert last.text.endswith("line 1499999\n")
    assert not last.more


def test_what_is_too_far_into_a_text_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(pages, "SEEK_MAX", 10)
    with pytest.raises(UsageError, match="in pages") as refused:
        stored(b"x" * 100)[1].page(11)
    assert "--full" in refused.value.hint


def test_values_are_shown_as_terms_and_strings_as_they_are():
    encode, objects = msgspec.msgpack.encode, MemoryObjects()
    assert text_of(Payload(encode("two\nlines")), objects).page().text == "two\nlines"
    assert text_of(Payload(encode({"a": [1]})), objects).page().text == '{"a": [1]}'
    assert text_of(Payload(missing="a socket"), objects).page().text == "(not stored: a socket)"
    assert text_of(None, objects).page().text == ""
    content = put_bytes(encode("y" * 300_000), objects)
    assert text_of(Payload(content=content), objects).total == 300_000
    with pytest.raises(Damaged):
        text_of(Payload(b"\xc1"), objects)


def test_a_piece_that_is_gone_is_damage():
    objects, text = stored(b"x" * 100)
    objects.objects.clear()
    with pytest.raises(DamagedObject):
        text.page()
