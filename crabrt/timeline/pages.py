"""Long texts by the page: what a tool printed may be larger than memory, and no screen holds it.

Every page is safe to print (`safe_text`), with what looks like a secret replaced, also where it
lies across the edge of a page. Texts up to `WHOLE_MAX` are decoded once and paged by characters;
longer ones are never in memory as a whole and are paged by bytes of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from crabrt.core.content import Content, piece_ids
from crabrt.core.entries import Payload
from crabrt.core.ids import ObjectKind
from crabrt.core.ports import ObjectReader
from crabrt.core.secrets import REDACTED, secret_spans
from crabrt.errors import DamagedObject, UsageError
from crabrt.store.contents import ZERO_BLOCK, read_blocks, zero_id
from crabrt.timeline import values
from crabrt.timeline.safe_text import safe_bytes, safe_text

PAGE = 64 << 10
"""Characters (or bytes) of a page, unless asked for otherwise."""

WHOLE_MAX = 8 << 20
"""Stored values up to this many bytes are decoded as a whole."""

SEEK_MAX = 256 << 20
"""No page begins further than this into what is stored: getting there reads all before it."""

_CONTEXT = 4096  # a token that begins this far before a page is still recognised on it
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack: str and bin headers


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a long text.

    Attributes:
        text: safe to print; newlines and tabs are kept.
        start, end: where it is, in the text's unit.
        total: how long the text is, in the same unit.
    """

    text: str
    start: int
    end: int
    total: int

    @property
    def more(self) -> bool:
        """Whether anything follows: ask for the page that starts at `end`."""
        return self.end < self.total


class LongText(Protocol):
    """A text that is shown by the page. `ShortText` and `StoredText` are the two kinds."""

    @property
    def total(self) -> int:
        """How long it is, in characters or in bytes: see `unit`."""

    @property
    def unit(self) -> str:
        """``characters`` or ``bytes``."""

    def page(self, start: int = 0, limit: int = PAGE) -> Page:
        """About `limit` of it from `start` on, up to the end of a line where one is near.

        Raises:
            UsageError: `start` is beyond `SEEK_MAX`.
            DamagedObject, StoreUnavailable: it cannot be read.
        """

    def pages(self) -> Iterator[Page]:
        """All of it, page after page, however long it is. Raises as `page`."""


class ShortText:
    """A text in memory. `text` is safe already."""

    unit = "characters"

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def total(self) -> int:
        """Characters."""
        return len(self.text)

    def page(self, start: int = 0, limit: int = PAGE) -> Page:
        """See `LongText`."""
        start = min(max(start, 0), len(self.text))
        end = min(start + max(limit, 1), len(self.text))
        if end < len(self.text):
            line = self.text.rfind("\n", start + limit // 2, end)
            end = line + 1 if line >= 0 else end
        return Page(self.text[start:end], start, end, len(self.text))

    def pages(self) -> Iterator[Page]:
        """See `LongText`."""
        yield Page(self.text, 0, len(self.text), len(self.text))


class StoredText:
    """Bytes in the store, as text.

    Args:
        content: where they are.
        reader: the store.
        skipped: bytes at the beginning that are not part of the text (the header of a value).
        redact: replace what looks like a secret.
    """

    unit = "bytes"

    def __init__(
        self, content: Content, reader: ObjectReader, *, skipped: int = 0, redact: bool = True
    ) -> None:
        self._content = content
        self._reader = reader
        self._skipped = skipped
        self._redact = redact

    @property
    def total(self) -> int:
        """Bytes."""
        return self._content.size - self._skipped

    def read(self, start: int, limit: int) -> bytes:
        """Bytes `start` to `start + limit`, or to the end.

        Raises:
            DamagedObject, StoreUnavailable: as `page`.
        """
        begin = self._skipped + start
        end = min(begin + limit, self._content.size)
        return _read_range(self._content, self._reader, begin, end)

    def page(self, start: int = 0, limit: int = PAGE) -> Page:
        """See `LongText`."""
        start = min(max(start, 0), self.total)
        if start > SEEK_MAX:
            raise UsageError(
                f"only the first {SEEK_MAX >> 20} MiB can be looked at in pages",
                hint="`crab show RUN@TURN --full`, or RUN@TURN:PATH, writes all of it to a file",
            )
        before = min(start, _CONTEXT if self._redact else 0)
        limit = max(limit, 4)  # a character, at least
        data = self.read(start - before, before + limit + _CONTEXT)
        return self._page(data[:before], data[before:], start, limit)

    def pages(self) -> Iterator[Page]:
        """See `LongText`."""
        context, ahead, at = b"", b"", 0
        skipped = self._skipped
        for piece in read_blocks(self._content, self._reader):
            ahead += piece[skipped:]
            skipped = max(0, skipped - len(piece))
            while len(ahead) > PAGE + _CONTEXT:
                yield (page := self._page(context, ahead, at, PAGE))
                length = page.end - page.start
                context = (context + ahead[:length])[-_CONTEXT:]
                ahead, at = ahead[length:], page.end
        if ahead:
            yield self._page(context, ahead, at, len(ahead))

    def _page(self, before: bytes, data: bytes, start: int, limit: int) -> Page:
        """The page of about `limit` bytes at the beginning of `data`, which stands behind `before`.

        What is longer than the page lets a secret be seen that its end would cut.
        """
        length = _end_of_page(data, limit)
        whole = before + data[: length + _CONTEXT]
        spans = _secrets(whole) if self._redact else []
        begin, end = len(before), len(before) + length
        return Page(_without(whole, spans, begin, end), start, start + length, self.total)


def text_of(payload: Payload | None, reader: ObjectReader) -> LongText:
    """A stored value, to be read by the page: a bare string as it is, everything else as a term.

    Raises:
        Damaged: it is no value.
        DamagedObject, StoreUnavailable: it cannot be read.
    """
    if payload is None:
        return ShortText("")
    if payload.missing is not None or (payload.content is None and payload.inline is None):
        return ShortText(f"(not stored: {safe_text(payload.missing or 'nothing was recorded')})")
    content = payload.content
    if content is not None and content.size > WHOLE_MAX:
        head = _read_range(content, reader, 0, 5)
        return StoredText(content, reader, skipped=_header_bytes(head))
    data = payload.inline
    if content is not None:
        data = _read_range(content, reader, 0, content.size)
    assert data is not None
    return ShortText(values.readable(values.decode_to_show(data)))


def stored_bytes(payload: Payload) -> int:
    """How long a stored value is, encoded."""
    return len(payload.inline or b"") if payload.content is None else payload.content.size


def _read_range(content: Content, reader: ObjectReader, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of a content; nothing behind them is read."""
    parts, at = [], 0
    for piece_id in piece_ids(content, reader.get):
        if at >= end:
            break
        piece = ZERO_BLOCK if piece_id == zero_id() else reader.get(piece_id, ObjectKind.DATA)
        if at + len(piece) > begin:
            parts.append(piece[max(0, begin - at) : end - at])
        at += len(piece)
    data = b"".join(parts)
    if len(data) != max(0, end - begin):
        where = content.ids[0].hex() if content.ids else None
        raise DamagedObject("the pieces of a content do not add up to it", where=where)
    return data


def _header_bytes(head: bytes) -> int:
    """How long the header of an encoded string is; 0 where the value is no string."""
    return 1 + _STRINGS[head[0]] if head and head[0] in _STRINGS else 0


def _end_of_page(data: bytes, limit: int) -> int:
    """Where a page of about `limit` bytes ends: behind a line, else behind a character."""
    if len(data) <= limit:
        return len(data)
    line = data.rfind(b"\n", limit // 2, limit)
    if line >= 0:
        return line + 1
    end = limit
    while end > max(1, limit - 3) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _secrets(data: bytes) -> list[tuple[int, int]]:
    """Spans that look like a secret. As Latin-1 every byte is a character; tokens are ASCII."""
    return secret_spans(data.decode("latin-1"))


def _without(data: bytes, spans: list[tuple[int, int]], begin: int, end: int) -> str:
    shown: Callable[[int, int], str] = lambda a, b: safe_bytes(data[a:b], lines=True)  # noqa: E731
    parts, at = [], begin
    for first, last in spans:
        if last <= begin or first >= end:
            continue
        parts += [shown(at, max(at, first)), REDACTED]
        at = min(last, end)
    return "".join([*parts, shown(at, end)])
