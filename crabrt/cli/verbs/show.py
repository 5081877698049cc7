"""``crab show``: one turn in full, or a file as it was."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from crabrt.cli import amounts, values
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import FILE_TARGET, FileTarget
from crabrt.cli.reports import change_sign
from crabrt.cli.safe_text import path_fields, safe_bytes, safe_path, safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.turn_lines import (
    checkpoint_cell,
    files_text,
    turn_json,
    verdict_cell,
    with_durations,
)
from crabrt.cli.verb import Outcome, verb
from crabrt.core.content import piece_ids
from crabrt.core.entries import Payload
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.targets import LAST
from crabrt.core.trees import Entry, Kind, read_directory
from crabrt.errors import UsageError
from crabrt.journal import CallDetail, RunRow, TurnDetail, TurnRow, run_dir, turn_detail
from crabrt.operations.comparing import turn_changes
from crabrt.operations.conversations import payload_bytes
from crabrt.operations.targets import resolve, resolve_turn
from crabrt.store import Store
from crabrt.store.contents import read_blocks
from crabrt.workspace import Change, find_entry

_SHOWN_MESSAGES = 6
_SHOWN_CHANGES = 20
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
    detail = turn_detail(run_dir(app.home, RunId(row.run)), turn)
    near = app.index.turns(row.run, turn.turn, turn.turn + 1)
    took_ms = next((took for one, took in with_durations(row.view, near) if one == turn), None)
    store = app.store
    if app.json:
        return Outcome(_turn_data(store, row, detail, changes, took_ms), lambda _: None)
    return Outcome(
        None,
        lambda out: out.lines(
            _turn_text(out, store, row, detail, changes, took_ms=took_ms, full=full)
        ),
    )


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
    assert entry.content is not None
    for block in read_blocks(entry.content, store):
        out.raw(safe_bytes(block, lines=True).encode() if out.terminal else block)


def _listing(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        size = amounts.size(entry.content.size) if entry.content is not None else ""
        letter = {Kind.DIR: "d", Kind.SYMLINK: "l", Kind.FIFO: "p"}.get(Kind(entry.kind), "-")
        arrow = f" -> {safe_path(entry.target)}" if entry.target else ""
        yield f"{letter} {entry.mode:04o} {size:>10}  {safe_path(entry.name)}{arrow}"


def _turn_text(
    out: Screen,
    store: Store,
    row: RunRow,
    detail: TurnDetail,
    changes: Sequence[Change],
    *,
    took_ms: float | None,
    full: bool,
) -> Iterator[str]:
    turn, live = detail.view, row.status == "running"
    verdict, checkpoint = verdict_cell(turn, live=live), checkpoint_cell(turn, live=live)
    yield out.style(f"{row.run}@{turn.turn}", "bold") + (
        f"  ({', '.join(turn.labels)})" if turn.labels else ""
    )
    took = f", took {amounts.duration(took_ms)}" if took_ms is not None else ""
    yield f"started     {amounts.clock(turn.started_ns)}{took}"
    if turn.base not in (turn.turn - 1, turn.turn):
        yield f"began on    turn {turn.base} (rolled back)"
    yield f"verdict     {out.style(verdict.text, *verdict.styles)}  {files_text(turn)}"
    for phrase in turn.evidence:
        yield f"            {safe_text(phrase)}"
    for change in changes if full else changes[:_SHOWN_CHANGES]:
        yield f"            {change_sign(change)} {safe_path(change.path)}"
    if not full and len(changes) > _SHOWN_CHANGES:
        yield f"            [{len(changes) - _SHOWN_CHANGES:,} more: --full]"
    yield f"checkpoint  {out.style(checkpoint.text, *checkpoint.styles)}" + (
        f", points inside: {', '.join(f'{turn.turn}.{i.inner}' for i in turn.inner)}"
        if turn.inner
        else ""
    )
    if turn.observer:
        yield f"observed    by {safe_text(turn.observer)}"
    yield f"stored      {amounts.size(turn.bytes_stored)}"
    yield (
        f"times       scan {amounts.duration(turn.scan_ms)}, "
        f"captured {amounts.duration(turn.capture_ms)}, "
        f"durable {amounts.duration(turn.durable_ms)}, exposed {amounts.duration(turn.exposed_ms)}"
    )
    yield from _warnings(out, turn)
    for call in detail.calls:
        yield ""
        yield from _call_text(out, store, call, full=full)
    for identity, payload in detail.recorded:
        yield ""
        yield f"recorded {safe_text(identity.name)} = {_shown(store, payload, full=full)}"


def _warnings(out: Screen, turn: TurnRow) -> Iterator[str]:
    for reason in turn.unprotected:
        yield out.style(f"unprotected {safe_text(reason)}", "red")
    if turn.thinned_ns:
        why = safe_text(turn.thinned_why or "retention")
        yield out.style(f"thinned     {amounts.clock(turn.thinned_ns)}: {why}", "yellow")
    for what in turn.unobserved:
        yield out.style(f"not seen    {safe_text(what)}", "yellow")
    for path, why in turn.not_captured:
        yield out.style(f"not captured {safe_path(path)}: {safe_text(why)}", "yellow")
    for note in turn.notes:
        yield out.style(f"note        {safe_text(note.topic)}: {safe_text(note.text)}", "yellow")


def _call_text(out: Screen, store: Store, call: CallDetail, *, full: bool) -> Iterator[str]:
    took = amounts.duration(call.duration_ms)
    if call.model:
        tokens = (
            f", {call.tokens_in or 0:,}/{call.tokens_out or 0:,} tokens" if call.tokens_in else ""
        )
        title = f"model {safe_text(call.call.callable)} {safe_text(call.asked or '')}".rstrip()
        yield out.style(title, "blue", "bold") + f"  {took}{tokens}"
        yield from _messages(out, store, call, full=full)
    else:
        prior = "" if str(call.prior) == "auto" else f"  [{call.prior}]"
        yield out.style(_call_title(store, call, full=full), "magenta", "bold") + f"  {took}{prior}"
        if call.guess is not None:
            yield f"  taken for {call.guess.effect} ({safe_text(call.guess.reason)})"
    if call.failure is not None:
        text = f"{call.failure.tag}: {call.failure.message}"
        yield from _block(out.style("raised", "red"), values.readable(text, full=full))
    elif call.cancelled:
        yield "  cancelled"
    elif call.result is None:
        yield "  no result (it was interrupted)"
    elif call.model:
        yield from _reply(out, store, call.result, full=full)
    else:
        yield from _block("->", _shown(store, call.result, full=full))


def _call_title(store: Store, call: CallDetail, *, full: bool) -> str:
    data = payload_bytes(call.arguments, store)
    name = safe_text(call.call.callable)
    if data is None:
        return f"{name}(?)  arguments not stored: {safe_text(call.arguments.missing or '')}"
    limit = 1_000_000 if full else 200
    return values.call_text(call.call.callable, values.decode_to_show(data), limit)


def _messages(out: Screen, store: Store, call: CallDetail, *, full: bool) -> Iterator[str]:
    if call.messages is None:
        yield from _block("request", _shown(store, call.arguments, full=full))
        return
    ids = list(piece_ids(call.messages, store.get))
    skipped = 0 if full else max(0, len(ids) - _SHOWN_MESSAGES)
    if skipped:
        yield f"  [{skipped} earlier messages: --full]"
    for message in ids[skipped:]:
        role, text = values.message_text(values.decode_to_show(store.get(message)), full=full)
        yield from _block(out.style(role or "message", "cyan"), text)


def _reply(out: Screen, store: Store, payload: Payload, *, full: bool) -> Iterator[str]:
    data = payload_bytes(payload, store)
    if data is None:
        yield from _block("reply", _shown(store, payload, full=full))
        return
    role, text = values.message_text(values.decode_to_show(data), full=full)
    yield from _block(out.style(f"reply {role}".rstrip(), "green"), text)


def _shown(store: Store, payload: Payload, *, full: bool) -> str:
    data = payload_bytes(payload, store)
    if data is None:
        return f"(not stored: {safe_text(payload.missing or 'nothing was recorded')})"
    return values.readable(values.decode_to_show(data), full=full)


def _block(title: str, text: str) -> Iterator[str]:
    first, *rest = text.split("\n")
    yield f"  {title} {first}"
    for line in rest:
        yield f"    {line}"


def _turn_data(
    store: Store,
    row: RunRow,
    detail: TurnDetail,
    changes: Sequence[Change],
    took_ms: float | None,
) -> dict[str, Any]:
    return {
        "run": row.run,
        **turn_json(detail.view, took_ms),
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
