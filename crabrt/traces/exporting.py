"""A run of the store as a trace.

Keys and tokens never get in. With `Options.redact` a trace can be given away: texts (messages,
replies, results) are left out and places and mail addresses renamed, while everything that a
replay needs (commands, edits, waits, verdicts) stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crabrt.core.content import piece_ids
from crabrt.core.entries import Payload
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.secrets import redact_text
from crabrt.core.verdicts import Prior
from crabrt.errors import NotFound
from crabrt.journal import CallDetail, RunIndex, RunRow, TurnRow, run_dir, turn_detail
from crabrt.operations.comparing import turn_changes
from crabrt.operations.conversations import payload_bytes
from crabrt.store import Store
from crabrt.traces import values
from crabrt.traces.schema import (
    SCHEMA,
    VERSION,
    ChangedPath,
    Files,
    Header,
    ModelCall,
    Request,
    Said,
    ToolCall,
    Turn,
)
from crabrt.workspace import Change

ARGUMENT_CHARS = 200_000
"""An argument over this is cut, and its call cannot be run again."""

_PATHS = 200
_EXIT_NAMES = ("exit_code", "returncode", "exit", "rc")
_WHO = {"system", "user", "developer"}


@dataclass(frozen=True)
class Options:
    """How a run is exported.

    Attributes:
        redact: leave texts out, rename places and people.
        text_chars: of results and replies; what is longer is cut.
        timing: what to say of the waits.
        made_by: for the header.
        home: the user's home directory, which `redact` renames; empty where there is none.
    """

    redact: bool = False
    text_chars: int = 4_000
    timing: str = "recorded"
    made_by: str = ""
    home: str = ""


def export_run(
    store: Store, index: RunIndex, row: RunRow, options: Options
) -> tuple[Header, Iterator[Turn]]:
    """The header and the turns of a run, read from its journal one by one.

    Raises:
        NotFound: it has no turn yet.
        Damaged: part of it cannot be read back (while the turns are iterated, too).
    """
    turns = index.turns(row.run)
    if not turns:
        raise NotFound("the run has no turn yet", where=row.run, hint="wait for its first call")
    exporter = _Exporter(store, index, row, options)
    return exporter.header(turns), (exporter.turn(turn) for turn in turns)


class _Exporter:
    """Turns of one run, in order: it remembers which messages were told already."""

    def __init__(self, store: Store, index: RunIndex, row: RunRow, options: Options) -> None:
        self._store, self._index, self._row, self._options = store, index, row, options
        self._directory = run_dir(store.home, RunId(row.run))
        self._told: dict[ObjectId, int] = {}  # sizes of the messages of all requests so far
        workspace = os.fsdecode(row.workspace)
        self._rename = values.Renaming([(workspace, "/workspace"), (options.home, "/home/user")])
        self._workspace = "/workspace" if options.redact else _utf8(row.workspace)

    def header(self, turns: list[TurnRow]) -> Header:
        row, options = self._row, self._options
        return Header(
            schema=SCHEMA,
            version=VERSION,
            id=row.run,
            turns=len(turns),
            workspace=self._workspace,
            source_version=row.view.version,
            name=row.name,
            started_at=_iso(row.started_ns),
            status=row.status,
            timing=options.timing,
            redacted=options.redact,
            made_by=options.made_by,
        )

    def turn(self, turn: TurnRow) -> Turn:
        detail = turn_detail(self._directory, turn)
        changes = turn_changes(self._store, self._index, self._row, turn)
        return Turn(
            turn=turn.turn,
            base=None if turn.base in (turn.turn - 1, turn.turn) else turn.base,
            started_at=_iso(turn.started_ns),
            models=tuple(self._model(call) for call in detail.calls if call.model),
            tools=tuple(self._tool(call) for call in detail.calls if not call.model),
            verdict=turn.verdict,
            evidence=self._phrases(turn.evidence),
            files=self._files(turn, list(changes)),
            checkpoint=str(turn.protection),
            consistency=str(turn.consistency),
            bytes_stored=turn.bytes_stored,
            scan_ms=turn.scan_ms,
            capture_ms=turn.capture_ms,
            durable_ms=turn.durable_ms,
            exposed_ms=turn.exposed_ms,
            unprotected=self._phrases(turn.unprotected),
            unobserved=self._phrases(turn.unobserved),
        )

    # -- calls -------------------------------------------------------------------------------

    def _model(self, call: CallDetail) -> ModelCall:
        return ModelCall(
            name=call.call.callable,
            model=call.asked,
            wait_ms=call.duration_ms,
            request=self._request(call),
            reply=self._text(call.result),
            failure=self._failure(call),
            tokens_in=call.tokens_in,
            tokens_out=call.tokens_out,
            cost_usd=call.cost_usd,
        )

    def _request(self, call: CallDetail) -> Request:
        if call.messages is None:
            data = payload_bytes(call.arguments, self._store)
            return Request(size_bytes=len(data or b""))
        ids = list(piece_ids(call.messages, self._store.get))
        new = []
        for message_id in ids:
            if message_id not in self._told:
                data = self._store.get(message_id)
                self._told[message_id] = len(data)
                message = values.decode(data)
                if isinstance(message, dict) and message.get("role") in _WHO:
                    text = self._shown(values.jsonable(message.get("content")))
                    new.append(Said(str(message["role"]), text))
        return Request(len(ids), sum(self._told[i] for i in ids), tuple(new))

    def _tool(self, call: CallDetail) -> ToolCall:
        arguments, redacted = self._arguments(call.arguments)
        exit_code = None
        data = None if call.result is None else payload_bytes(call.result, self._store)
        if data is not None:
            exit_code = _exit_code(values.decode(data))
        return ToolCall(
            name=call.call.callable,
            arguments=arguments,
            result=self._text(call.result),
            exit_code=exit_code,
            ok=None if call.result is None else call.failure is None and not call.cancelled,
            failure=self._failure(call),
            duration_ms=call.duration_ms,
            effect="auto" if call.prior is Prior.AUTO else str(call.prior),
            cut=values.is_cut(arguments),
            redacted=redacted,
        )

    def _arguments(self, payload: Payload) -> tuple[dict[str, Any], bool]:
        data = payload_bytes(payload, self._store)
        if data is None:
            return {"missing": values.left_out(payload.missing or "")}, False
        plain = values.jsonable(values.decode(data))
        named = plain if isinstance(plain, dict) else {"args": plain}
        clean = values.without_tokens(named)
        redacted = clean != named
        if self._options.redact:
            clean = values.map_text(clean, self._rename)
        return values.map_text(clean, lambda t: values.cut_text(t, ARGUMENT_CHARS)), redacted

    def _text(self, payload: Payload | None) -> Any:
        data = None if payload is None else payload_bytes(payload, self._store)
        return None if data is None else self._shown(values.jsonable(values.decode(data)))

    def _shown(self, value: Any) -> Any:
        if self._options.redact:
            return values.left_out(value)
        return values.cut(values.without_tokens(value), self._options.text_chars)

    def _failure(self, call: CallDetail) -> str | None:
        if call.failure is None:
            return "cancelled" if call.cancelled else None
        if self._options.redact:
            return call.failure.tag
        text = redact_text(f"{call.failure.tag}: {call.failure.message}")
        return text[: self._options.text_chars]

    # -- facts -------------------------------------------------------------------------------

    def _files(self, turn: TurnRow, changes: list[Change]) -> Files | None:
        if not (turn.files or changes):
            return None
        paths = tuple(
            ChangedPath(self._phrase(_utf8(change.path) or "."), tuple(change.how))
            for change in changes[:_PATHS]
        )
        more = max(0, len(changes) - _PATHS)
        return Files(turn.files_added, turn.files_changed, turn.files_removed, paths, more)

    def _phrases(self, phrases: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._phrase(phrase) for phrase in phrases)

    def _phrase(self, text: str) -> str:
        text = redact_text(text)
        return self._rename(text) if self._options.redact else text


def _exit_code(value: Any) -> int | None:
    """The exit code in a tool's result, where it is a map that names one."""
    if not isinstance(value, dict):
        return None
    for name in _EXIT_NAMES:
        code = value.get(name)
        if isinstance(code, int) and not isinstance(code, bool):
            return code
    return None


def _utf8(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _iso(wall_ns: int) -> str | None:
    if not wall_ns:
        return None
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")
