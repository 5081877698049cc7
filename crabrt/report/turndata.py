"""A turn in full, as plain values within a bound of bytes: what the page shows when it is opened.

======== ==========================================================================
``n``    the turn's number
``facts``  pairs: a word and what there is to say
``why``  evidence for the verdict
``bad``  kind and text of what a person should read: lost protection, what was not seen
``calls``  see `calls`
``files``  see `filedata`
``alive``  what was alive after it: a tree of processes each, with what they hold
``cut``  texts were cut more than asked for, or left out, as the report would be too long
======== ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import filterfalse
from typing import Any, TypeVar

from crabrt.core.verdicts import is_passing
from crabrt.errors import CrabError
from crabrt.journal import CallDetail
from crabrt.report import texts, wording
from crabrt.report.calls import CallTeller
from crabrt.report.embedding import json_bytes
from crabrt.report.filedata import CHANGES_MOST, FileTeller
from crabrt.report.options import ReportOptions
from crabrt.report.redaction import Redaction
from crabrt.timeline import amounts
from crabrt.timeline.alive import AliveTree, Member, alive_trees
from crabrt.timeline.reader import RunReader
from crabrt.timeline.rows import Row
from crabrt.timeline.table import Rows
from crabrt.timeline.troubles import in_words

T = TypeVar("T")

CALLS_MOST = 200
_EVIDENCE_MOST = 40
_LISTED_MOST = 40
_ALIVE_MOST = 50
_HELD_MOST = 12
_REASONS_MOST = 8
_SHORTER = (4_096, 1_024, 256, 0)


class TurnTeller:
    """Tells the turns of one run, in order.

    Attributes:
        problems: what could not be read, a line each.
        cut: how many turns were cut more than asked for.
    """

    def __init__(self, reader: RunReader, redaction: Redaction, options: ReportOptions) -> None:
        self._reader, self._redaction = reader, redaction
        self._calls = CallTeller(reader, redaction, options)
        self._files = FileTeller(reader, redaction, options)
        self.problems: list[str] = []
        self.cut = 0

    def tell(self, rows: Rows, row: Row, limit: int) -> tuple[list[str], bytes]:
        """Name and title of its first tool call, and the turn as JSON of about `limit` bytes."""
        self._calls.begin_turn()
        calls = self._told_calls(row)
        tool = next((call for call in calls if call["k"] == "tool"), None)
        first = [] if tool is None else [tool.get("name", ""), tool.get("title", "")]
        data: dict[str, Any] = {
            "n": row.number,
            "facts": list(_facts(row, self._redaction)),
            "why": [self._redaction.line(one) for one in row.view.evidence[:_EVIDENCE_MOST]],
            "bad": list(_attention(row, self._redaction)),
            "calls": calls,
            "files": self._told_files(rows, row),
            "alive": self._told_alive(row),
        }
        return first, self._within(data, limit)

    # -- parts, each of which may be unreadable -----------------------------------------------

    def _told_calls(self, row: Row) -> list[dict[str, Any]]:
        detail = self._part(row, lambda: self._reader.detail(row.view))
        if isinstance(detail, str):
            return [{"k": "unreadable", "out": texts.unreadable(detail)}]
        told = [self._told_call(row, call) for call in detail.calls[:CALLS_MOST]]
        if len(detail.calls) > CALLS_MOST:
            told.append({"k": "more", "name": str(len(detail.calls) - CALLS_MOST)})
        return told

    def _told_call(self, row: Row, call: CallDetail) -> dict[str, Any]:
        data = self._part(row, lambda: self._calls.data(call))
        if not isinstance(data, str):
            return data
        name = self._redaction.line(call.call.callable)
        return {"k": "unreadable", "name": name, "out": texts.unreadable(data)}

    def _told_files(self, rows: Rows, row: Row) -> dict[str, Any]:
        if row.view.root is None and not row.view.files:
            return {}
        changes = self._part(row, lambda: self._reader.changed_by(rows, row.number, CHANGES_MOST))
        if isinstance(changes, str):
            return {"why": f"cannot be read: {changes}"}
        if row.number == 0 and not changes.items:
            return {}
        told = self._part(row, lambda: self._files.data(changes))
        if isinstance(told, str):
            return {"why": f"cannot be read: {told}"}
        return told if told["items"] or "why" in told else {}

    def _told_alive(self, row: Row) -> list[dict[str, Any]]:
        state = self._part(row, lambda: self._reader.alive(row.view))
        if isinstance(state, str):
            return [{"what": f"cannot be read: {state}"}]
        return [self._tree(tree) for tree in alive_trees(state)[:_ALIVE_MOST]]

    def _tree(self, tree: AliveTree) -> dict[str, Any]:
        line = self._redaction.line
        data = {
            **self._member(tree.top),
            "below": [
                {**self._member(one), "depth": one.depth, "parent": one.process.parent}
                for one in tree.members[1:]
            ],
            "more": tree.more,
            "image": tree.image.text,
            "why": [line(reason) for reason in tree.reasons[:_REASONS_MOST]],
        }
        return {key: value for key, value in data.items() if value}

    def _member(self, member: Member) -> dict[str, Any]:
        line, path = self._redaction.line, self._redaction.path
        words = b" ".join(member.process.command).decode("utf-8", "surrogateescape")
        held = [
            [one.verb, one.items(_HELD_MOST, path, lambda end: line(end, 80))]
            for one in member.holdings
        ]
        data = {
            "pid": member.process.pid,
            "what": line(words, 200),
            "held": held,
            "left": member.unlisted,
        }
        return {key: value for key, value in data.items() if value}

    def _part(self, row: Row, ask: Callable[[], T]) -> T | str:
        """What `ask` gives; where that goes wrong, why, which is among the `problems` too."""
        try:
            return ask()
        except CrabError as error:
            why = self._redaction.line(error.message)
        except Exception as error:  # noqa: BLE001 - one odd value must not cost all other turns
            why = self._redaction.line(in_words(error))
        self.problems.append(f"turn {row.number}: {why}")
        return why

    # -- bounds ------------------------------------------------------------------------------

    def _within(self, data: dict[str, Any], limit: int) -> bytes:
        """`data` as JSON, its texts cut shorter and shorter until they fit."""
        encoded = json_bytes(data)
        if len(encoded) <= limit:
            return encoded
        self.cut += 1
        data["cut"] = True
        for chars in _SHORTER:
            data["calls"] = [_shorter_call(call, chars) for call in data["calls"]]
            data["files"] = _shorter_files(data["files"], chars)
            data["alive"] = data["alive"] if chars else list(map(_shorter_tree, data["alive"]))
            encoded = json_bytes(data)
            if len(encoded) <= limit:
                return encoded
        kept = ("n", "facts", "bad", "cut")
        return json_bytes({key: data[key] for key in kept})


def _facts(row: Row, redaction: Redaction) -> Iterator[tuple[str, str]]:
    view, ms = row.view, amounts.duration
    took = f", took {ms(row.took_ms)}" if row.took_ms is not None else ""
    yield "began", f"{wording.utc(view.started_ns)}{took}"
    if row.went_back_to is not None:
        yield "on the state of", f"turn {row.went_back_to}"
    yield "checkpoint", row.checkpoint.text
    if view.root is not None:
        times = f"scan {ms(view.scan_ms)}, captured {ms(view.capture_ms)}"
        times += f", durable {ms(view.durable_ms)}" if view.durable_ms else ""
        times += f", processes stood still {ms(view.frozen_ms)}" if view.frozen_ms else ""
        yield "it cost", f"{times}; the loop waited {ms(view.exposed_ms)}"
    if view.bytes_stored:
        yield "stored", amounts.size(view.bytes_stored)
    if view.observer:
        by = "; ".join([view.observer, *filter(is_passing, view.unobserved)])
        yield "observed by", redaction.line(by)
    if view.inner:
        inner = ", ".join(f"{view.turn}.{one.inner}" for one in view.inner[:_LISTED_MOST])
        yield "points inside", inner
    if view.thinned_ns:
        why = redaction.line(view.thinned_why or "retention")
        yield "files given up", f"{wording.utc(view.thinned_ns)}: {why}"
    if view.shared:
        yield "shared", "another run worked in the same directory"


def _attention(row: Row, redaction: Redaction) -> Iterator[tuple[str, str]]:
    view, line = row.view, redaction.line
    for reason in view.unprotected[:_LISTED_MOST]:
        yield "unprotected", line(reason)
    if row.torn:
        yield "torn", "files kept changing while they were read"
    for path, why in view.not_captured[:_LISTED_MOST]:
        yield "not captured", f"{redaction.path(path)}: {line(why)}"
    for what in filterfalse(is_passing, view.unobserved[:_LISTED_MOST]):
        yield "not seen", line(what)
    for note in view.notes[:_LISTED_MOST]:
        yield line(note.topic), line(note.text)


def _shorter_call(call: dict[str, Any], chars: int) -> dict[str, Any]:
    """A call with its texts cut; with 0 characters, without them."""
    if not chars:
        short = {key: value for key, value in call.items() if key not in ("args", "messages")}
        return {**short, "out": texts.shorter(call["out"], 80)} if "out" in call else short
    short = dict(call)
    for key in ("args", "out"):
        if key in call:
            short[key] = texts.shorter(call[key], chars)
    if "messages" in call:
        short["messages"] = [[role, texts.shorter(text, chars)] for role, text in call["messages"]]
    return short


def _shorter_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """Without what is below its topmost process, and what that holds."""
    below = len(tree.get("below", ())) + tree.get("more", 0)
    short = {key: value for key, value in tree.items() if key not in ("below", "held", "left")}
    return {**short, "more": below} if below else short


def _shorter_files(files: dict[str, Any], chars: int) -> dict[str, Any]:
    if "items" not in files:
        return files
    items = [dict(item) for item in files["items"]]
    for item in items:
        if "patch" in item and chars:
            item["patch"] = texts.shorter(item["patch"], chars)
        elif "patch" in item:
            del item["patch"]
            item["note"] = "left out here"
    most = len(items) if chars else 10
    more = {"more": True} if len(items) > most else {}
    return {**files, **more, "items": items[:most]}
