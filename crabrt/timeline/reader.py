"""One turn in full, on demand: its calls, messages, outputs, changes, files and processes.

What a timeline's rows do not hold stays in the journal and in the store until somebody asks; every
answer has a bound, and says when there is more. Nothing is kept here, so any thread may ask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from crabrt.core.content import Content, piece_ids
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.processes import ProcessState
from crabrt.core.trees import Entry, read_directory
from crabrt.errors import NotFound
from crabrt.journal import CallDetail, TurnDetail, TurnView, run_dir, turn_detail
from crabrt.operations.conversations import payload_bytes
from crabrt.process.state import read_state
from crabrt.store import Store
from crabrt.store.contents import read_bytes
from crabrt.timeline import patches, values
from crabrt.timeline.pages import WHOLE_MAX, LongText, ShortText, StoredText, stored_bytes, text_of
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.table import Rows
from crabrt.workspace import Change, diff_roots, find_entry

CHANGES_MOST = 2_000
"""How many changes are listed, unless asked for otherwise."""

PATCH_LINES_MOST = 5_000
"""How many lines of a patch are given, unless asked for otherwise."""

_INSIDE = {"+": "added", "-": "removed", " ": "context", "\\": "note"}


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation: who speaks (safe text), and what they say."""

    role: str
    text: LongText


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two states, in path order.

    Attributes:
        items: as many as were asked for.
        more: whether there are others.
        why_not: where nothing can be compared, why; else empty.
    """

    items: tuple[Change, ...] = ()
    more: bool = False
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class PatchLine:
    """A line of a patch.

    Attributes:
        text: safe to print.
        kind: ``head``, ``hunk``, ``added``, ``removed``, ``context``, or ``note`` (what a patch
            cannot say).
    """

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Patch:
    """How one path changed.

    Attributes:
        change: the path.
        lines: of the patch, as many as were asked for.
        more: whether there are others.
    """

    change: Change
    lines: tuple[PatchLine, ...]
    more: bool


class RunReader:
    """Answers about one run. Thread-safe, as the store is.

    All methods raise, besides what they say: DamagedObject, DamagedJournal, FormatTooNew,
    StoreUnavailable: something cannot be read; UsageError: the store was closed.
    """

    def __init__(self, store: Store, run: str) -> None:
        """Raises UsageError: `run` could not be a run id."""
        self.store = store
        self.run = run
        self._directory = run_dir(store.home, RunId(run))

    def detail(self, view: TurnView) -> TurnDetail:
        """A turn's calls, with references to what went in and came out.

        Raises:
            PositionLost: the view is older than a power cut that took the turn.
            NotFound: the run is gone.
        """
        return turn_detail(self._directory, view)

    def title(self, call: CallDetail, limit: int = 200) -> str:
        """A call on one line of at most `limit` characters, safe: ``sh("make", retries=2)``."""
        data = payload_bytes(call.arguments, self.store)
        if data is None:
            why = safe_text(call.arguments.missing or "")
            return f"{safe_text(call.call.callable)}(?)  arguments not stored: {why}"
        return values.call_text(call.call.callable, values.decode_to_show(data), limit)

    def message_ids(self, call: CallDetail) -> tuple[ObjectId, ...]:
        """The ids of the messages that a model call sent; none where they cannot be told apart."""
        messages = call.messages
        return () if messages is None else tuple(piece_ids(messages, self.store.get))

    def messages(self, ids: Sequence[ObjectId]) -> list[Message]:
        """Messages by their ids: ask for as many as are shown."""
        return [self._message(self.store.get(message)) for message in ids]

    def arguments(self, call: CallDetail) -> LongText:
        """What went in, as a term."""
        return text_of(call.arguments, self.store)

    def output(self, call: CallDetail) -> Message:
        """What came out: of a model its reply, of a tool its result (without a role).

        Empty if nothing did; what a call raised is `CallDetail.failure`.
        """
        result = call.result
        if call.model and result is not None and stored_bytes(result) <= WHOLE_MAX:
            data = payload_bytes(result, self.store)
            if data is not None:
                return self._message(data)
        return Message("", text_of(result, self.store))

    def changed_by(self, rows: Rows, number: int, limit: int = CHANGES_MOST) -> Changes:
        """What a turn changed in the files: from the state it began on to the one it left."""
        row = rows.at(number)
        base = None if row is None else rows.at(row.view.base)
        if row is None or base is None:
            return Changes(why_not="there is no such turn")
        if row.view.base == number:
            return Changes(why_not="nothing was before it")
        return self.compare(base.view, row.view, limit)

    def compare(self, before: TurnView, after: TurnView, limit: int = CHANGES_MOST) -> Changes:
        """What differs between the states after two turns of this run, or of any in its store."""
        why_not = _why_not(before) or _why_not(after)
        if why_not:
            return Changes(why_not=why_not)
        found = self._differences(before, after)
        items = tuple(itertools.islice(found, limit))
        return Changes(items, next(found, None) is not None)

    def paths_changed(self, rows: Rows, number: int) -> Iterator[bytes]:
        """Every path that a turn changed, in order: its trees are compared as one asks on.

        Raises:
            NotFound: the files of the turn, or of the one it began on, are not kept.
        """
        row = rows.at(number)
        base = None if row is None else rows.at(row.view.base)
        if row is None or base is None:
            raise NotFound("there is no such turn", where=f"{self.run}@{number}")
        why_not = _why_not(base.view) or _why_not(row.view)
        if why_not:
            raise NotFound(why_not, where=f"{self.run}@{number}")
        for change in self._differences(base.view, row.view):
            yield change.path

    def patch(self, change: Change, limit: int = PATCH_LINES_MOST) -> Patch:
        """How the text of one path changed; a large or binary file is only named."""
        lines = patches.file_patch(change, self._read)
        shown = tuple(patch_lines(itertools.islice(lines, limit)))
        return Patch(change, shown, next(lines, None) is not None)

    def entry(self, view: TurnView, path: bytes) -> Entry:
        """What was at `path` (relative; empty: the workspace) after a turn.

        Raises:
            NotFound: nothing was, or the turn's files are not kept.
        """
        if view.root is None or view.thinned_ns:
            raise NotFound("the files of this turn are not kept", where=f"{self.run}@{view.turn}")
        return find_entry(self.store, view.root, path)

    def children(self, entry: Entry) -> list[Entry]:
        """What was in a directory, in name order; nothing for what is none."""
        return list(read_directory(ObjectId(entry.child), self.store.get)) if entry.child else []

    def file(self, entry: Entry, *, redact: bool = False) -> LongText:
        """The content of a file as it was; empty for what has none."""
        if entry.content is None:
            return ShortText("")
        return StoredText(entry.content, self.store, redact=redact)

    def alive(self, view: TurnView) -> ProcessState:
        """What was alive after a turn; nothing for one whose files were given up as well."""
        if not view.processes or view.thinned_ns:
            return ProcessState()
        return read_state(ObjectId(view.processes), self.store)

    def _differences(self, before: TurnView, after: TurnView) -> Iterator[Change]:
        assert before.root is not None
        assert after.root is not None
        return diff_roots(self.store, before.root, after.root)

    def _message(self, data: bytes) -> Message:
        role, text = values.message_text(values.decode_to_show(data))
        return Message(role, ShortText(text))

    def _read(self, content: Content) -> bytes:
        return read_bytes(content, self.store)


def _why_not(view: TurnView) -> str:
    """Why the files of a turn cannot be compared; empty if they can."""
    if view.thinned_ns:
        return f"the files of turn {view.turn} were given up"
    return f"turn {view.turn} has no checkpoint" if view.root is None else ""


def patch_lines(lines: Iterable[str]) -> Iterator[PatchLine]:
    """The lines of a patch, told apart and safe to print."""
    inside = False
    for line in lines:
        kind = _INSIDE.get(line[:1]) if inside else None
        if line.startswith("@@"):
            kind, inside = "hunk", True
        elif kind is None:
            inside = False
            kind = "note" if line.startswith("#") else "head"
        yield PatchLine(safe_text(line, lines=True), kind)
