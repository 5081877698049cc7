"""``crab show``: one turn in full, or a file as it was."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from itertools import filterfalse
from typing import Any

import click

from crabrt.cli.alive_lines import alive_json, alive_lines
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import FILE_TARGET, FileTarget
from crabrt.cli.reports import change_sign
from crabrt.cli.screen import Screen
from crabrt.cli.tones import sign_text
from crabrt.cli.turn_lines import files_text, turn_json
from crabrt.cli.verb import Outcome, verb
from crabrt.core.content import piece_ids
from crabrt.core.entries import Payload
from crabrt.core.ids import ObjectId
from crabrt.core.secrets import redact_text
from crabrt.core.targets import LAST
from crabrt.core.trees import Entry, Kind, read_directory
from crabrt.core.verdicts import is_passing
from crabrt.errors import UsageError
from crabrt.journal import CallDetail, TurnDetail, TurnRow
from crabrt.journal.views import RUNNING
from crabrt.operations.comparing import turn_changes
from crabrt.operations.conversations import payload_bytes
from crabrt.operations.targets import resolve, resolve_turn
from crabrt.store import Store
from crabrt.store.contents import read_blocks
from crabrt.timeline import amounts, values
from crabrt.timeline.pages import LongText, ShortText, StoredText, text_of
from crabrt.timeline.reader import RunReader
from crabrt.timeline.rows import Row, rows_of
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text
from crabrt.timeline.troubles import in_words
from crabrt.workspace import Change, find_entry

_SHOWN_MESSAGES = 6
_SHOWN_CHANGES = 20
_SHOWN_CHARS = 2_000
_JSON_MAX_BYTES = 16 << 20


@verb(
    "show",
    examples=(
        "crab show last@12",
        "crab show last@-1 --full              # nothing cut",
        "crab show last@12:src/app.py          # the file as it was",
        "crab show last@0:src > /tmp/listing",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
    about_last=True,
)
@click.argument("target", type=FILE_TARGET, metavar="[RUN@TURN[:PATH]]", default=LAST)
@click.option("--full", is_flag=True, help="Cut nothing, show every message.")
def command(app: App, *, target: FileTarget, full: bool) -> Outcome:
    """Show one turn: its messages, calls, changed files, evidence, and what was not captured.

    Without TURN it is the latest one.

    With :PATH, print that file as it was at the end of the turn (exact bytes when piped, escaped on
    a terminal), or list the directory. PATH is relative to the workspace.
    """
    if target.path is not None:
        return _show_path(app, target, target.path)
    row, turn, _ = resolve_turn(app.index, target.target)
    changes = turn_changes(app.store, app.index, row, turn)
    near = app.index.turns(row.run, turn.turn, turn.turn + 1)
    shown = next(rows_of(row.view, near, live=row.status == RUNNING))
    reader = RunReader(app.store, row.run)
    calls = reader.detail(turn)
    if app.json:
        return Outcome(_turn_data(reader, shown, calls, changes), lambda _: None)

    def text(out: Screen) -> None:
        told = _TurnText(reader, full=full)
        out.lines(told.lines(out, shown, calls, changes))
        if told.trouble is not None:
            out.flush()
            raise told.trouble

    return Outcome(None, text)


def _show_path(app: App, target: FileTarget, path: bytes) -> Outcome:
    state = resolve(app.index, target.target)
    if path.startswith(b"/"):
        top = state.run.workspace.rstrip(b"/") + b"/"
        if not path.startswith(top):
            raise UsageError("that path is outside the workspace", where=os.fsdecode(path))
        path = path[len(top) :]
    path = os.path.normpath(path)
    if path == b".." or path.startswith(b"../"):
        raise UsageError("that path is outside the workspace", where=os.fsdecode(path))
    entry = find_entry(app.store, state.root, b"" if path == b"." else path)
    data: dict[str, Any] = {
        "target": state.name,
        **path_fields(path),
        "kind": Kind(entry.kind).name.lower(),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "modified_at": amounts.iso(entry.mtime_ns) if entry.mtime_ns else None,
    }
    if entry.kind == Kind.DIR:
        below = list(read_directory(ObjectId(entry.child), app.store.get))
        data["entries"] = [
            {**path_fields(child.name, "name"), "kind": Kind(child.kind).name.lower()}
            for child in below
        ]
        return Outcome(data, lambda out: out.lines(_listing(below)))
    if entry.kind == Kind.SYMLINK:
        data |= path_fields(entry.target, "target_path")
        return Outcome(data, lambda out: out.line(safe_path(entry.target)))
    if entry.content is None:
        return Outcome(data, lambda out: out.line("a FIFO: it has no content"))
    data["size_bytes"] = entry.content.size
    if app.json:
        if entry.content.size > _JSON_MAX_BYTES:
            raise UsageError(
                f"{amounts.size(entry.content.size)} are too much for one JSON value",
                hint="leave --json away and redirect the output",
            )
        blob = b"".join(read_blocks(entry.content, app.store))
        try:
            data["text"] = blob.decode()
        except UnicodeDecodeError:
            data["content_b64"] = base64.b64encode(blob).decode("ascii")
    return Outcome(data, lambda out: _write_file(out, app.store, entry))


def _write_file(out: Screen, store: Store, entry: Entry) -> None:
    """Its exact bytes to a file or a pipe; a terminal gets text, of whole characters."""
    assert entry.content is not None
    if out.terminal:
        for page in StoredText(entry.content, store, redact=False).pages():
            out.raw(page.text.encode())
        return
    for block in read_blocks(entry.content, store):
        out.raw(block)


def _listing(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        size = amounts.size(entry.content.size) if entry.content is not None else ""
        letter = {Kind.DIR: "d", Kind.SYMLINK: "l", Kind.FIFO: "p"}.get(Kind(entry.kind), "-")
        arrow = f" -> {safe_path(entry.target)}" if entry.target else ""
        yield f"{letter} {entry.mode:04o} {size:>10}  {safe_path(entry.name)}{arrow}"


class _TurnText:
    """A turn for people. Long texts are cut unless `full`.

    Attributes:
        trouble: the first error that kept a call from being shown; all others are shown.
    """

    def __init__(self, reader: RunReader, *, full: bool) -> None:
        self._reader = reader
        self._full = full
        self.trouble: Exception | None = None

    def lines(
        self, out: Screen, row: Row, detail: TurnDetail, changes: Sequence[Change]
    ) -> Iterator[str]:
        """All of it."""
        turn = row.view
        yield out.style(f"{self._reader.run}@{turn.turn}", "bold") + (
            f"  ({', '.join(turn.labels)})" if turn.labels else ""
        )
        took = f", took {amounts.duration(row.took_ms)}" if row.took_ms is not None else ""
        yield f"started     {amounts.clock(turn.started_ns)}{took}"
        if row.went_back_to is not None:
            yield f"began on    turn {turn.base} (rolled back)"
        yield f"verdict     {sign_text(out, row.verdict)}  {files_text(turn)}"
        for phrase in turn.evidence:
            yield f"            {safe_text(phrase)}"
        yield from self._changes(changes)
        points = ", ".join(f"{turn.turn}.{one.inner}" for one in turn.inner)
        yield f"checkpoint  {sign_text(out, row.checkpoint)}" + (
            f", points inside: {points}" if points else ""
        )
        if turn.observer:
            by = "; ".join([turn.observer, *filter(is_passing, turn.unobserved)])
            yield f"observed    by {safe_text(by)}"
        yield from alive_lines(out, self._reader.alive(turn))
        yield f"stored      {amounts.size(turn.bytes_stored)}"
        yield _times(turn)
        yield from _warnings(out, turn)
        for call in detail.calls:
            yield ""
            yield from self._whatever_it_is(out, call)
        for identity, payload in detail.recorded:
            yield ""
            value = self._cut(text_of(payload, self._reader.store))
            yield f"recorded {safe_text(identity.name)} = {value}"

    def _changes(self, changes: Sequence[Change]) -> Iterator[str]:
        shown = changes if self._full else changes[:_SHOWN_CHANGES]
        for change in shown:
            yield f"            {change_sign(change)} {safe_path(change.path)}"
        if len(changes) > len(shown):
            yield f"            [{len(changes) - len(shown):,} more: --full]"

    def _whatever_it_is(self, out: Screen, call: CallDetail) -> Iterator[str]:
        """A call; what of it cannot be shown is told in its place, and is the `trouble`."""
        try:
            yield from self._call(out, call)
        except Exception as error:  # noqa: BLE001 - it is raised when all others have been shown
            self.trouble = self.trouble or error
            name = safe_text(call.call.callable)
            why = safe_text(in_words(error))
            yield out.style(f"{name}: the rest of this call cannot be shown: {why}", "red")

    def _call(self, out: Screen, call: CallDetail) -> Iterator[str]:
        took = amounts.duration(call.duration_ms)
        if call.model:
            given, got = call.tokens_in or 0, call.tokens_out or 0
            tokens = f", {given:,}/{got:,} tokens" if call.tokens_in else ""
            title = f"model {safe_text(call.call.callable)} {safe_text(call.asked or '')}".rstrip()
            yield out.style(title, "blue", "bold") + f"  {took}{tokens}"
            yield from self._messages(out, call)
        else:
            prior = "" if str(call.prior) == "auto" else f"  [{call.prior}]"
            title = self._reader.title(call, 1_000_000 if self._full else 200)
            yield out.style(title, "magenta", "bold") + f"  {took}{prior}"
            if call.guess is not None:
                yield f"  taken for {call.guess.effect} ({safe_text(call.guess.reason)})"
        if call.failure is not None:
            text = redact_text(f"{call.failure.tag}: {call.failure.message}")
            yield from _block(out.style("raised", "red"), self._cut(ShortText(_safe(text))))
        elif call.cancelled:
            yield "  cancelled"
        elif call.result is None:
            yield "  no result (it was interrupted)"
        elif call.model:
            reply = self._reader.output(call)
            yield from _block(
                out.style(f"reply {reply.role}".rstrip(), "green"), self._cut(reply.text)
            )
        else:
            yield from _block("->", self._cut(self._reader.output(call).text))

    def _messages(self, out: Screen, call: CallDetail) -> Iterator[str]:
        if call.messages is None:
            yield from _block("request", self._cut(self._reader.arguments(call)))
            return
        ids = self._reader.message_ids(call)
        skipped = 0 if self._full else max(0, len(ids) - _SHOWN_MESSAGES)
        if skipped:
            yield f"  [{skipped} earlier messages: --full]"
        for message in ids[skipped:]:
            [one] = self._reader.messages([message])
            yield from _block(out.style(one.role or "message", "cyan"), self._cut(one.text))

    def _cut(self, text: LongText) -> str:
        """All of it, or its beginning with a note of how much more there is."""
        if self._full:
            return "".join(page.text for page in text.pages())
        page = text.page(0, _SHOWN_CHARS)
        left = page.total - page.end
        return f"{page.text}\n[{left:,} more {text.unit}: --full]" if left else page.text


def _safe(text: str) -> str:
    return safe_text(text, lines=True)


def _times(turn: TurnRow) -> str:
    frozen = f", processes frozen {amounts.duration(turn.frozen_ms)}" if turn.frozen_ms else ""
    return (
        f"times       scan {amounts.duration(turn.scan_ms)}, "
        f"captured {amounts.duration(turn.capture_ms)}, "
        f"durable {amounts.duration(turn.durable_ms)}, exposed {amounts.duration(turn.exposed_ms)}"
        f"{frozen}"
    )


def _warnings(out: Screen, turn: TurnRow) -> Iterator[str]:
    for reason in turn.unprotected:
        yield out.style(f"unprotected {safe_text(reason)}", "red")
    if turn.thinned_ns:
        why = safe_text(turn.thinned_why or "retention")
        yield out.style(f"thinned     {amounts.clock(turn.thinned_ns)}: {why}", "yellow")
    for what in filterfalse(is_passing, turn.unobserved):
        yield out.style(f"not seen    {safe_text(what)}", "yellow")
    for path, why in turn.not_captured:
        yield out.style(f"not captured {safe_path(path)}: {safe_text(why)}", "yellow")
    for note in turn.notes:
        yield out.style(f"note        {safe_text(note.topic)}: {safe_text(note.text)}", "yellow")


def _block(title: str, text: str) -> Iterator[str]:
    first, *rest = text.split("\n")
    yield f"  {title} {first}"
    for line in rest:
        yield f"    {line}"


def _turn_data(
    reader: RunReader, row: Row, detail: TurnDetail, changes: Sequence[Change]
) -> dict[str, Any]:
    store = reader.store
    return {
        "run": reader.run,
        **turn_json(row),
        "alive": alive_json(reader.alive(row.view)),
        "changes": [{**path_fields(change.path), "how": list(change.how)} for change in changes],
        "calls": [_call_data(store, call) for call in detail.calls],
        "recorded": [
            {"name": identity.name, "value": _json(store, payload)}
            for identity, payload in detail.recorded
        ],
    }


def _call_data(store: Store, call: CallDetail) -> dict[str, Any]:
    messages = None
    if call.messages is not None:
        ids = piece_ids(call.messages, store.get)
        messages = [values.jsonable(values.decode_to_show(store.get(i))) for i in ids]
    failure = call.failure
    return {
        "call": str(call.call),
        "kind": "model" if call.model else "tool",
        "name": call.call.callable,
        "model": call.asked,
        "prior": str(call.prior),
        "guess": call.guess and {"effect": str(call.guess.effect), "reason": call.guess.reason},
        "started_at": amounts.iso(call.wall_ns),
        "duration_ms": call.duration_ms,
        "arguments": _json(store, call.arguments),
        "messages": messages,
        "result": None if call.result is None else _json(store, call.result),
        "failure": None if failure is None else {"tag": failure.tag, "message": failure.message},
        "cancelled": call.cancelled,
        "tokens_in": call.tokens_in,
        "tokens_out": call.tokens_out,
        "cost_usd": call.cost_usd,
    }


def _json(store: Store, payload: Payload) -> Any:
    data = payload_bytes(payload, store)
    return (
        {"missing": payload.missing}
        if data is None
        else values.jsonable(values.decode_to_show(data))
    )
