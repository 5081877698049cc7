"""Claude Code's sessions: JSONL, a line a message or a note, in the order they happened.

A reply is written as several lines of one ``message.id``, a content block each; they are one turn.
A tool's result is a line of type ``user`` with ``tool_result`` blocks. A wait is the time from the
line before to the reply's first line: what a person did in between (a prompt, a permission) is no
wait of the model, and not counted as one where the file shows it. Lines of other types are passed
over. What sub-agents did (``isSidechain``) is not in the main file's order, and left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from crabrt.traces.importing.fields import (
    Malformed,
    between_ms,
    content_text,
    maybe_count,
    maybe_map,
    maybe_text,
    needed_map,
    needed_text,
    seconds,
)
from crabrt.traces.schema import (
    RECORDED,
    SCHEMA,
    UNKNOWN,
    VERSION,
    Header,
    ModelCall,
    Request,
    Said,
    ToolCall,
    Trace,
    Turn,
)

_EXIT = re.compile(r"\A(?:Error: )?Exit code (\d+)")
_REFUSED = re.compile(r"User rejected|\[Request interrupted|doesn't want to (?:proceed|take)")
_SEEN = 50  # lines looked at to recognize a file


@dataclass
class _Reply:
    """One reply while its lines come in."""

    line: dict[str, Any]
    wait_ms: float | None
    new: list[Said]
    texts: list[str] = field(default_factory=list)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    asked_at: dict[str, float | None] = field(default_factory=dict)


def recognizes(lines: list[dict[str, Any]]) -> bool:
    """Whether lines are of such a session."""
    return any(
        line.get("type") in {"user", "assistant"}
        and isinstance(line.get("message"), dict)
        and bool({"sessionId", "parentUuid", "uuid"} & line.keys())
        for line in lines[:_SEEN]
    )


def to_trace(numbered: list[tuple[int, dict[str, Any]]], name: str) -> Trace:
    """The trace of a session's lines.

    Raises:
        Malformed: a message is not as it should be.
    """
    reader = _Session()
    for number, line in numbered:
        reader.feed(line, f"line {number}")
    turns = tuple(_turn(number, reply) for number, reply in enumerate(reader.replies.values(), 1))
    timed = any(turn.models[0].wait_ms is not None for turn in turns)
    notes = [f"{count} {what}" for what, count in reader.left_out.items() if count]
    header = Header(
        schema=SCHEMA,
        version=VERSION,
        id=reader.session or name,
        turns=len(turns),
        workspace=reader.workspace,
        source="Claude Code",
        source_version=reader.version,
        started_at=reader.started_at,
        timing=RECORDED if timed else UNKNOWN,
        notes=tuple(notes),
    )
    return Trace(header, turns)


class _Session:
    """Lines of a session, taken in one by one."""

    def __init__(self) -> None:
        self.replies: dict[str, _Reply] = {}
        self.session = self.workspace = self.version = ""
        self.started_at: str | None = None
        self.left_out = {"lines of sub-agents left out": 0, "repeated lines passed over": 0}
        self._uuids: set[str] = set()
        self._owner: dict[str, _Reply] = {}
        self._new: list[Said] = []
        self._last: float | None = None

    def feed(self, line: dict[str, Any], where: str) -> None:
        if line.get("type") not in {"user", "assistant"} or line.get("isMeta") is True:
            return
        if line.get("isSidechain") is True:
            self.left_out["lines of sub-agents left out"] += 1
            return
        uuid = maybe_text(line.get("uuid"))
        if uuid is not None and uuid in self._uuids:
            self.left_out["repeated lines passed over"] += 1
            return
        self._uuids |= {uuid} if uuid is not None else set()
        message = needed_map(line.get("message"), "'message'", where)
        self.session = self.session or maybe_text(line.get("sessionId")) or ""
        self.workspace = self.workspace or maybe_text(line.get("cwd")) or ""
        self.version = self.version or maybe_text(line.get("version")) or ""
        self.started_at = self.started_at or maybe_text(line.get("timestamp"))
        content = message.get("content")
        if not isinstance(content, str | list):
            raise Malformed("'message.content' should be a text or a list", where)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        now = seconds(line.get("timestamp"))
        if line["type"] == "assistant":
            self._reply(line, message, blocks, now, where)
        else:
            self._from_user(line, blocks, now, where)
        self._last = now if now is not None else self._last

    def _reply(
        self, line: dict[str, Any], message: dict[str, Any], blocks: list[Any], now: float | None,
        where: str,
    ) -> None:  # fmt: skip
        identity = maybe_text(message.get("id")) or where
        reply = self.replies.get(identity)
        if reply is None:
            reply = _Reply(line, between_ms(self._last, now), self._new)
            self.replies[identity], self._new = reply, []
        reply.line = line  # the last of its lines has the final counts of tokens
        for raw in blocks:
            block = needed_map(raw, "a content block", where)
            if block.get("type") == "text":
                reply.texts.append(content_text([block]))
            elif block.get("type") == "tool_use":
                call = needed_text(block, "id", where)
                reply.calls[call] = ToolCall(
                    name=needed_text(block, "name", where),
                    arguments=needed_map(block.get("input"), "'input'", where),
                    cwd=maybe_text(line.get("cwd")),
                )
                reply.asked_at[call] = now
                self._owner[call] = reply

    def _from_user(
        self, line: dict[str, Any], blocks: list[Any], now: float | None, where: str
    ) -> None:
        for raw in blocks:
            block = needed_map(raw, "a content block", where)
            if block.get("type") == "tool_result":
                call = needed_text(block, "tool_use_id", where)
                owner = self._owner.get(call)
                if owner is not None:
                    took_ms = between_ms(owner.asked_at[call], now)
                    found = maybe_text(line.get("toolUseResult")) or ""
                    owner.calls[call] = _answered(owner.calls[call], block, found, took_ms)
            elif block.get("type") == "text":
                self._new.append(Said("user", content_text([block])))


def _answered(
    call: ToolCall, block: dict[str, Any], result: str, took_ms: float | None
) -> ToolCall:
    text = content_text(block.get("content"))
    failed = block.get("is_error") is True
    match = _EXIT.match(text) or _EXIT.match(result)
    code = int(match.group(1)) if match and failed else None
    if code is None and not failed and call.name == "Bash":
        code = 0
    refused = failed and bool(_REFUSED.search(result) or _REFUSED.search(text[:200]))
    return ToolCall(
        name=call.name,
        arguments=call.arguments,
        cwd=call.cwd,
        result=text,
        exit_code=code,
        ok=not failed,
        duration_ms=took_ms,
        ran=not refused,
    )


def _turn(number: int, reply: _Reply) -> Turn:
    message = maybe_map(reply.line.get("message"))
    usage = maybe_map(message.get("usage"))
    counts = [
        maybe_count(usage.get(key))
        for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    ]
    known = [count for count in counts if count is not None]
    model = ModelCall(
        model=maybe_text(message.get("model")),
        wait_ms=reply.wait_ms,
        request=Request(new=tuple(reply.new)) if reply.new else None,
        reply="\n".join(reply.texts),
        tokens_in=sum(known) if known else None,
        tokens_out=maybe_count(usage.get("output_tokens")),
    )
    at = maybe_text(reply.line.get("timestamp"))
    return Turn(turn=number, started_at=at, models=(model,), tools=tuple(reply.calls.values()))
