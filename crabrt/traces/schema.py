"""The trace file: one JSON object a line; first the header, then every turn in order.

It is a record to read, to share and to run again, not a backup: files are not in it, and what is
long is cut (see `values`). Lines are at most `LINE_MAX_BYTES`. The header counts the turns, so that
a file that was cut off is known as such. Readers ignore fields they do not know; a change that an
old reader would misunderstand raises `VERSION`. docs/traces.md is the same for people.
"""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA = "crabrt-trace"
VERSION = 1
LINE_MAX_BYTES = 1 << 20

RECORDED, SYNTHETIC, UNKNOWN = "recorded", "synthetic", "unknown"
"""Where the waits of a trace come from: a clock, a distribution, or nobody knows."""


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line.

    Attributes:
        schema, version: `SCHEMA`, and the version of it that the file was written in.
        id: of the run, or of the session that was imported.
        turns: how many lines follow.
        workspace: the absolute directory that recorded commands and paths speak of; empty where
            nobody knows.
        source: what wrote the original: ``crabrt``, ``mini-swe-agent``, ...
        source_version: and which version of it.
        name: of the run.
        started_at: ISO 8601, UTC.
        status: ``done``, ``failed``, ``running``, ``crashed``, or what the source says.
        timing: whether the waits are `RECORDED`, `SYNTHETIC` or `UNKNOWN`.
        redacted: texts were left out and paths renamed on request (`crab export --redact`).
        made_by: how it was made, for people.
        notes: what was lost on the way, for people.
    """

    schema: str
    version: int
    id: str
    turns: int
    workspace: str = ""
    source: str = "crabrt"
    source_version: str = ""
    name: str = ""
    started_at: str | None = None
    status: str = ""
    timing: str = RECORDED
    redacted: bool = False
    made_by: str = ""
    notes: tuple[str, ...] = ()


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that a request brought with it: who said it, and the text (cut where long)."""

    role: str
    text: Any = None


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model was asked, in short.

    Attributes:
        messages: how many the conversation had.
        size_bytes: of the encoded messages, or arguments.
        new: messages of the system and of people that no earlier request of the trace had; replies
            and tool results are elsewhere in the trace.
    """

    messages: int = 0
    size_bytes: int = 0
    new: tuple[Said, ...] = ()


class ModelCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question to a model.

    Attributes:
        name: of the callable.
        model: which model, if known.
        wait_ms: from asking to the whole reply; None: unknown.
        request, reply: what was asked and answered.
        failure: what it raised, or None.
        tokens_in, tokens_out, cost_usd: as reported.
    """

    name: str = "model"
    model: str | None = None
    wait_ms: float | None = None
    request: Request | None = None
    reply: Any = None
    failure: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a tool.

    Attributes:
        name: of the tool.
        arguments: by name.
        cwd: where it ran, if that is told apart from the arguments.
        result: what it gave.
        exit_code: of the command, where the result says so.
        ok: it returned (True), raised or failed (False), or nobody knows (None).
        failure: what it raised, or None.
        duration_ms: how long it took; None: unknown.
        effect: what it was declared to do.
        ran: False: it was refused or interrupted before it acted, and is not run again.
        cut: an argument was too long to keep: it cannot be run again.
        redacted: something in an argument was replaced: a replay does not do quite the same.
    """

    name: str
    arguments: dict[str, Any] = {}
    cwd: str | None = None
    result: Any = None
    exit_code: int | None = None
    ok: bool | None = None
    failure: str | None = None
    duration_ms: float | None = None
    effect: str = "auto"
    ran: bool = True
    cut: bool = False
    redacted: bool = False


class ChangedPath(msgspec.Struct, frozen=True, omit_defaults=True):
    """A path that a turn changed, and how (``added``, ``content``, ``mode``, ...)."""

    path: str
    how: tuple[str, ...] = ()


class Files(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a turn did to files: counts, and the first paths."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    paths: tuple[ChangedPath, ...] = ()
    more_paths: int = 0


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. Turn 0 of a crabrt run is the workspace as it was found; imports have none.

    Attributes:
        turn, base: its number; the turn on whose state it began.
        started_at: ISO 8601, UTC.
        models, tools: its calls, each in order.
        verdict, evidence: what it did, as observed, and why; empty where nobody judged it.
        files: what changed.
        checkpoint, consistency: how safe its state is, and of which instant.
        bytes_stored: added to the store for it.
        scan_ms, capture_ms, durable_ms, exposed_ms: what it cost.
        unprotected, unobserved: what went wrong, and what could not be looked at.
    """

    turn: int
    base: int | None = None
    started_at: str | None = None
    models: tuple[ModelCall, ...] = ()
    tools: tuple[ToolCall, ...] = ()
    verdict: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    files: Files | None = None
    checkpoint: str | None = None
    consistency: str | None = None
    bytes_stored: int = 0
    scan_ms: float | None = None
    capture_ms: float | None = None
    durable_ms: float | None = None
    exposed_ms: float | None = None
    unprotected: tuple[str, ...] = ()
    unobserved: tuple[str, ...] = ()


class Trace(msgspec.Struct, frozen=True):
    """A whole trace in memory."""

    header: Header
    turns: tuple[Turn, ...]
