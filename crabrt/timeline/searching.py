"""Searches through a whole run, in steps: found turns come as they are found, and it can be left.

A text is looked for in the stored bytes: in msgpack a string lies as plain UTF-8, so nothing is
decoded to find that it is not there. A message is looked at once, in the turn that brought it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crabrt.core.content import Content, piece_ids, split_node
from crabrt.core.entries import (
    Body,
    Failure,
    Intent,
    Noted,
    Observed,
    Payload,
    Request,
    Response,
    Result,
)
from crabrt.core.ids import ObjectId, ObjectKind, RunId
from crabrt.core.secrets import redact_text
from crabrt.errors import CrabError
from crabrt.journal import PositionLost, Record, read_journal, run_dir
from crabrt.journal.rows import Problem
from crabrt.operations.touching import Touching
from crabrt.store import Store
from crabrt.timeline.timeline import Timeline

SLICE_S = 0.02
HITS_MOST = 10_000
PIECE_MOST = 4 << 20
"""Of a longer stored value only so much is looked through."""

_AROUND = 60
_SPACES = dict.fromkeys([*range(32), 0x7F, 0xFFFD], " ")  # what is between encoded strings


@dataclass(frozen=True, slots=True)
class Hit:
    """Where something was found.

    Attributes:
        turn: the turn.
        what: ``message``, ``request``, ``reply``, ``call`` (a tool's arguments), ``output``,
            ``evidence``, ``note`` or ``path``.
        excerpt: what is around it, raw text of one line, with what looks like a secret replaced.
    """

    turn: int
    what: str
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """How far a search is.

    Attributes:
        hits: so far, in the order found; at most one for each turn and `Hit.what`.
        turn: the turn it has come to.
        done: nothing more will be found; `cut` says if that is as there are too many.
        cut: it stopped at `HITS_MOST`.
        problems: what could not be looked through.
    """

    hits: tuple[Hit, ...] = ()
    turn: int = 0
    done: bool = False
    cut: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def turns(self) -> frozenset[int]:
        """The turns in which something was found."""
        return frozenset(hit.turn for hit in self.hits)


class Search:
    """A search in steps. One thread at a time calls `step`; any may read `found`."""

    def __init__(self) -> None:
        self.found = Found()
        self._hits: dict[tuple[int, str], Hit] = {}
        self._problems: list[Problem] = []
        self._turn = 0
        self._steps: Iterator[None] = self._go()

    def step(self, slice_s: float = SLICE_S) -> Found:
        """Go on for about `slice_s`. What goes wrong ends the search and is in the answer."""
        if self.found.done:
            return self.found
        until = time.monotonic() + slice_s
        done = False
        try:
            while not done:
                done = next(self._steps, self) is self
                if time.monotonic() >= until:
                    break
        except CrabError as error:
            self._problems.append(Problem.of(error))
            done = True
        cut = len(self._hits) >= HITS_MOST
        hits = tuple(self._hits.values())
        self.found = Found(hits, self._turn, done or cut, cut, tuple(self._problems))
        return self.found

    def finish(self) -> Found:
        """Go on to the end."""
        while not self.found.done:
            self.step(1.0)
        return self.found

    def _go(self) -> Iterator[None]:
        """Look, and yield often."""
        raise NotImplementedError

    def _hit(self, turn: int, what: str, excerpt: str = "") -> None:
        if len(self._hits) < HITS_MOST:
            self._hits.setdefault((turn, what), Hit(turn, what, excerpt))


class TextSearch(Search):
    """Turns in whose conversation a text stands: messages, replies, calls, outputs, evidence.

    When it is done and the run went on, `go_on` makes it look at what is new, and at nothing else.
    """

    def __init__(self, store: Store, run: str, text: str) -> None:
        """Raises UsageError: `run` could not be a run id."""
        self._store = store
        self._directory = run_dir(store.home, RunId(run))
        self._text = text
        self._ascii = text.isascii()
        self._needle = text.lower().encode("utf-8", "surrogateescape")
        self._looked: set[ObjectId] = set()
        self._last: Record | None = None
        super().__init__()

    def go_on(self) -> None:
        """Look at what was written since it was done; one that failed or was cut stays as it is."""
        if self.found.done and not (self.found.cut or self.found.problems):
            self.found = replace(self.found, done=False)
            self._steps = self._go()

    def _go(self) -> Iterator[None]:
        if not self._text:
            return
        try:
            yield from self._look_behind(self._last)
        except PositionLost:  # a power cut took what was looked at, and the run went on otherwise
            self._hits.clear()
            self._looked.clear()
            yield from self._look_behind(None)

    def _look_behind(self, last: Record | None) -> Iterator[None]:
        after = None if last is None else last.position
        for record in read_journal(self._directory, after=after):
            self._turn = record.entry.turn
            yield from self._look_at(record)
            self._last = record
            yield

    def _look_at(self, record: Record) -> Iterator[None]:
        body, turn = record.body, record.entry.turn
        match body:
            case Request():
                if body.messages is None:
                    self._payload(turn, "request", body.arguments)
                else:
                    yield from self._messages(turn, body.messages)
            case Response():
                self._payload(turn, "reply", body.result)
                self._failure(turn, "reply", body.failure)
            case Intent():
                self._payload(turn, "call", body.arguments)
                self._bytes(turn, "call", body.call.callable.encode("utf-8", "surrogateescape"))
            case Result():
                self._payload(turn, "output", body.result)
                self._failure(turn, "output", body.failure)
            case _:
                self._said(turn, body)

    def _said(self, turn: int, body: Body | None) -> None:
        if isinstance(body, Noted):
            self._string(turn, "note", f"{body.topic}: {body.text}")
        elif isinstance(body, Observed):
            self._string(body.turn, "evidence", "; ".join(body.verdict.evidence))

    def _messages(self, turn: int, messages: Content) -> Iterator[None]:
        """The messages that no request had before: lists share the nodes that did not change."""
        ahead = [(messages.level, one) for one in reversed(messages.ids)]
        while ahead:
            level, one = ahead.pop()
            if one in self._looked:
                continue
            self._looked.add(one)
            if level:
                node = split_node(self._store.get(one, ObjectKind.LIST), one)
                ahead += [(level - 1, below) for below in reversed(node)]
            else:
                message = self._store.get(one)
                if not self._was_said(turn):
                    self._bytes(turn, "message", message)
            yield

    def _was_said(self, turn: int) -> bool:
        """Whether it was found where it came up: a request repeats replies and outputs."""
        before = ((turn - 1, "reply"), (turn - 1, "output"), (turn, "reply"), (turn, "output"))
        return any(place in self._hits for place in before)

    def _payload(self, turn: int, what: str, payload: Payload) -> None:
        if payload.inline is not None:
            self._bytes(turn, what, payload.inline)
        elif payload.content is not None:
            left = PIECE_MOST
            before = b""
            for piece in piece_ids(payload.content, self._store.get):
                data = self._store.get(piece)
                self._bytes(turn, what, before + data)
                before = data[-len(self._needle) :]
                left -= len(data)
                if left <= 0:
                    break

    def _failure(self, turn: int, what: str, failure: Failure | None) -> None:
        if failure is not None:
            self._string(turn, what, f"{failure.tag}: {failure.message}")

    def _string(self, turn: int, what: str, text: str) -> None:
        self._bytes(turn, what, text.encode("utf-8", "surrogateescape"))

    def _bytes(self, turn: int, what: str, data: bytes) -> None:
        if self._ascii:
            at = data.lower().find(self._needle)
        else:  # only text knows the case of other letters
            text = data.decode("utf-8", "replace")
            at = text.lower().find(self._text.lower())
            data, at = text.encode(), len(text[:at].encode()) if at >= 0 else -1
        if at >= 0:
            around = data[max(0, at - _AROUND) : at + len(self._needle) + _AROUND]
            text = around.decode("utf-8", "replace").translate(_SPACES)
            self._hit(turn, what, redact_text(" ".join(text.split())))


class TouchSearch(Search):
    """Turns that changed paths, by comparing trees; the latest turns first.

    When the run goes on, `go_on` makes it compare what is new, and nothing else.
    """

    def __init__(self, store: Store, timeline: Timeline, paths: Sequence[bytes]) -> None:
        """Args: the store; the run as it is now; paths relative to its workspace.

        Raises:
            UsageError: a path is outside the workspace.
        """
        self._touching = Touching(store, timeline.view.workspace_path, paths)
        self._touching.take(row.view for row in timeline.rows)
        super().__init__()

    def go_on(self, timeline: Timeline, first: int) -> None:
        """The run is another one from turn `first` on: what was found there is forgotten.

        One that failed or was cut stays as it is.
        """
        if self.found.cut or self.found.problems:
            return
        rows = timeline.rows.after(first - 1)
        self._touching.take((row.view for row in rows), first)
        self._hits = {key: hit for key, hit in self._hits.items() if hit.turn < first}
        self.found = replace(self.found, hits=tuple(self._hits.values()), done=False)
        self._steps = self._go()

    def _go(self) -> Iterator[None]:
        for turn, touched in self._touching:
            self._turn = turn
            if touched:
                self._hit(turn, "path")
            yield
