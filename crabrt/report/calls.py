"""The calls of a turn as values to show: what was said, called with what, and what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from crabrt.core.content import split_node
from crabrt.core.entries import Payload
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.verdicts import Prior
from crabrt.journal import CallDetail
from crabrt.operations.conversations import payload_bytes
from crabrt.report import texts, wording
from crabrt.report.options import ReportOptions
from crabrt.report.redaction import Redaction
from crabrt.timeline import amounts, values
from crabrt.timeline.pages import WHOLE_MAX, stored_bytes, text_of
from crabrt.timeline.reader import RunReader
from crabrt.timeline.safe_text import safe_text

TITLE_CHARS = 160
MESSAGES_MOST = 40
"""Of what a request added, so many messages are shown, the last ones."""

_RESULTS = frozenset({"tool", "function"})


class CallTeller:
    """Tells the calls of a run, turn by turn: it remembers which messages were told already."""

    def __init__(self, reader: RunReader, redaction: Redaction, options: ReportOptions) -> None:
        self._reader, self._redaction, self._options = reader, redaction, options
        self._looked: set[ObjectId] = set()
        self._said: set[str] = set()  # in the turn before: requests repeat replies and outputs
        self._saying: set[str] = set()

    def begin_turn(self) -> None:
        """What follows belongs to the next turn."""
        self._said, self._saying = self._saying, set()

    def data(self, call: CallDetail) -> dict[str, Any]:
        """A call in full, as far as it is told."""
        return self._model(call) if call.model else self._tool(call)

    # -- models ------------------------------------------------------------------------------

    def _model(self, call: CallDetail) -> dict[str, Any]:
        told = list(self._messages(call))
        asked = self._redaction.line(call.asked or call.call.callable, TITLE_CHARS)
        return _kept({
            "k": "model",
            "name": asked,
            "took": amounts.duration(call.duration_ms),
            "tokens": _tokens(call),
            "usd": wording.dollars(call.cost_usd or 0.0),
            "messages": told[-MESSAGES_MOST:],
            "more": max(0, len(told) - MESSAGES_MOST),
            **self._outcome(call),
        })  # fmt: skip

    def _messages(self, call: CallDetail) -> Iterator[list[Any]]:
        """Role and text of what the request added to all requests before it."""
        if call.messages is None:
            text = self._text(call.arguments)
            if text:
                yield ["request", text]
            return
        ahead = [(call.messages.level, one) for one in reversed(call.messages.ids)]
        while ahead:
            level, one = ahead.pop()
            if one in self._looked:
                continue
            self._looked.add(one)
            if level:
                node = split_node(self._reader.store.get(one, ObjectKind.LIST), one)
                ahead += [(level - 1, below) for below in reversed(node)]
                continue
            role, text = self._message(self._reader.store.get(one))
            if not self._is_echo(role, text):
                yield [role, self._told(text)]

    def _message(self, data: bytes) -> tuple[str, str]:
        value = self._redaction.value(values.decode(data))
        return values.message_text(value)

    def _is_echo(self, role: str, text: str) -> bool:
        """Whether a message repeats what the turn before or this one has told."""
        both = self._said | self._saying
        if role == "assistant":
            return text in both
        if role not in _RESULTS:
            return False
        return text in both or any(said and text.startswith(f"{said}\n") for said in both)

    # -- tools -------------------------------------------------------------------------------

    def _tool(self, call: CallDetail) -> dict[str, Any]:
        value = self._arguments(call)
        missing = safe_text(call.arguments.missing or "nothing was recorded")
        title = f"(not stored: {missing})" if value is None else _title(value)
        whole = "" if value is None else self._whole(value)
        external = call.external
        target = external.target if external is not None else None
        return _kept({
            "k": "tool",
            "name": self._redaction.line(call.call.callable, TITLE_CHARS),
            "title": title,
            "args": whole if whole != title else "",
            "took": amounts.duration(call.duration_ms),
            "prior": "" if call.prior is Prior.AUTO else str(call.prior),
            "guess": "" if call.guess is None else (
                f"{call.guess.effect} ({self._redaction.line(call.guess.reason)})"
            ),
            "external": "" if external is None else f"{external.kind}"
            + (f", to {self._redaction.line(target)}" if target else ""),
            **self._outcome(call),
        })  # fmt: skip

    def _arguments(self, call: CallDetail) -> Any:
        """What went in, redacted; None where it was not stored (or is longer than is shown)."""
        if stored_bytes(call.arguments) > WHOLE_MAX:
            return [[f"({amounts.size(stored_bytes(call.arguments))})"], {}]
        data = payload_bytes(call.arguments, self._reader.store)
        return None if data is None else self._redaction.value(values.decode(data))

    def _whole(self, value: Any) -> texts.Text:
        """All arguments, a line or a block each; nothing where the title has them."""
        every = _every(value)
        if len(every) == 1 and isinstance(every[0][1], str):
            return texts.shown(values.readable(every[0][1]), self._options.text_bytes)
        lines = [
            f"{safe_text(key)}: {shown}" if key else shown
            for key, shown in ((k, values.readable(v)) for k, v in every)
        ]
        if all("\n" not in line for line in lines) and len(", ".join(lines)) < TITLE_CHARS:
            return ""
        return texts.shown("\n".join(lines), self._options.text_bytes)

    # -- what came out -----------------------------------------------------------------------

    def _outcome(self, call: CallDetail) -> dict[str, Any]:
        if call.failure is not None:
            message = self._redaction.block(call.failure.message)
            return {
                "state": "raised",
                "raised": self._redaction.line(call.failure.tag),
                "out": self._told(message),
            }
        if call.cancelled:
            return {"state": "cancelled"}
        if call.result is None:
            return {"state": "no result"}
        return {"state": "", "out": self._reply(call) if call.model else self._text(call.result)}

    def _reply(self, call: CallDetail) -> texts.Text:
        assert call.result is not None
        if stored_bytes(call.result) > WHOLE_MAX:
            return self._text(call.result)
        data = payload_bytes(call.result, self._reader.store)
        if data is None:
            return self._text(call.result)
        _, text = self._message(data)
        self._saying.add(text)
        return self._told(text)

    def _text(self, payload: Payload) -> texts.Text:
        """A stored value as a text; a huge one by its beginning."""
        if payload.missing is not None:
            return f"(not stored: {safe_text(payload.missing)})"
        if stored_bytes(payload) > WHOLE_MAX:
            if not self._redaction.keeps_texts:
                return texts.left_out(stored_bytes(payload), "bytes")
            long = text_of(payload, self._reader.store)
            return texts.page_of(long, self._options.text_bytes, self._redaction.block)
        data = payload_bytes(payload, self._reader.store)
        if data is None:
            return "(not stored)"
        text = values.readable(self._redaction.value(values.decode(data)))
        self._saying.add(text)
        return self._told(text)

    def _told(self, text: str) -> texts.Text:
        if not self._redaction.keeps_texts:
            return texts.left_out(len(text))
        return texts.shown(text, self._options.text_bytes)


def _every(value: Any) -> list[tuple[str, Any]]:
    """The arguments of a call; those that were given by position have no name."""
    positional, named = values.arguments(value)
    return [*(("", item) for item in positional), *((str(k), v) for k, v in named.items())]


def _title(value: Any) -> str:
    """The arguments of a call on one line."""
    every = _every(value)
    if len(every) == 1 and isinstance(every[0][1], str):
        lines = (part.strip() for part in every[0][1].strip().split("\n"))
        return _one_line(safe_text(" ⏎ ".join(lines)))
    named = ((key, _term(item)) for key, item in every)
    parts = [f"{safe_text(key)}={shown}" if key else shown for key, shown in named]
    return _one_line(", ".join(parts))


def _term(value: Any) -> str:
    """A value on one line; a text in quotes."""
    if isinstance(value, str):
        return safe_text(json.dumps(value, ensure_ascii=False))
    return safe_text(values.readable(value))


def _one_line(text: str) -> str:
    return text if len(text) <= TITLE_CHARS else text[: TITLE_CHARS - 1] + "…"


def _tokens(call: CallDetail) -> str:
    if call.tokens_in is None and call.tokens_out is None:
        return ""
    return f"{call.tokens_in or 0:,} in, {call.tokens_out or 0:,} out"


def _kept(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value}
