"""What a journal says about where its run stopped: the facts a resume is decided on. Reads only.

C, the state to go on from, is the last checkpoint that is durable or can be made so: a `captured`
entry whose content is all there only needs its commit (``checkpoints.whole``).
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from crabrt.core.entries import (
    Body,
    CallId,
    Captured,
    Checkpoint,
    Ended,
    Forked,
    Intent,
    Noted,
    Observed,
    Recorded,
    Request,
    Response,
    Result,
    Resumed,
    RolledBack,
    Started,
    Superseded,
    TurnOpened,
)
from crabrt.core.ids import ObjectId, RunId, derived_run_id
from crabrt.core.verdicts import Effect, Likely, Prior, Protection
from crabrt.errors import StoreUnavailable
from crabrt.inspector import CallFact
from crabrt.journal import Record, read_journal

GAP = "gap"
"""Topic of the note that entries are missing before it: the journal could not be written."""

OF_CALLS = (
    TurnOpened, Request, Response, Intent, Result, Recorded, Superseded, RolledBack
)  # fmt: skip
"""Entries that a resume cannot do without."""


@dataclasses.dataclass(frozen=True)
class State:
    """A state a run can go on from.

    Attributes:
        turn, inner: which.
        root: what the workspace holds.
        position: seq of the last entry that belongs to it.
        processes: the root of what was alive; empty if nothing was.
        spool: where images of that lie, if it was captured and is not durable; else empty.
    """

    turn: int
    inner: int
    root: ObjectId
    position: int
    processes: bytes = b""
    spool: bytes = b""

    @property
    def name(self) -> str:
        """``TURN``, or ``TURN.INNER``, as people may type it behind ``RUN@``."""
        return f"{self.turn}.{self.inner}" if self.inner else f"{self.turn}"


class Span(NamedTuple):
    """When a call was made: seqs of the first and of the last entry about it."""

    first: int
    last: int


class Outside(dict[int, list[CallFact]]):
    """By turn: the recorded calls that have or may have acted outside.

    The verdict over a turn that is resumed in its middle needs them. Whatever else tools did there
    is observed; of this, the record is all there is.
    """

    def note(self, intent: Intent, turn: int) -> None:
        """A call is about to act in `turn`."""
        fact = CallFact(intent.call.callable, intent.prior, intent.guess)
        guessed = fact.guess is not None and fact.guess.effect is Likely.EXTERNAL
        if guessed or fact.prior is Prior.EXTERNAL:
            self.setdefault(turn, []).append(fact)

    def forget_behind(self, turn: int) -> None:
        """The run is a fork of that turn: what comes later in the record, it did not do."""
        for later in [number for number in self if number > turn]:
            del self[later]


@dataclasses.dataclass
class Stop:
    """Where a run stopped.

    Attributes:
        started: its first entry.
        forked: the last fork in its history, if any.
        checkpoint: C, or None before the first one.
        turn_start: root of the last end of a turn (or of a rollback).
        began_on: root that the last turn began on: the same, unless that turn has ended.
        unfinished: later states that were captured and have no `checkpoint`, in their order; and
            what was missing then.
        turn: the last turn that was opened; 0 before the first.
        turn_had_tools: whether a tool call of that turn has a result.
        inner: the last inner checkpoint of that turn.
        open_tools: tool calls with an intent and no result.
        last_tool_seq: of the latest intent of a tool call.
        behind: tool calls that began or ended behind C, and when.
        ended: the last entry that says the agent returned or raised, if nothing came after it.
        tool_calls: how many tool calls are recorded.
        changed_files: whether any turn did.
        outside: calls that acted outside, by turn.
        marks: the last inner checkpoint of every turn that has one.
        gap: what is missing since C or since the last resume, or None.
        buried_gap: what is missing before C, so that C cannot be replayed to; or None.
        buried_by: the position of the first checkpoint that it is missing before.
        unburied: with a `buried_gap`, the last checkpoint before it; None: there is none.
        forked_seq: seq of the entry that made it a fork, or -1.
        boot, wall_ns, seq: of the last entry.
        walls: when each entry was written; the first is that of seq 1.
    """

    started: Started | None = None
    gap: str | None = None
    buried_gap: str | None = None
    buried_by: int = 0
    unburied: State | None = None
    forked: Forked | None = None
    forked_seq: int = -1
    checkpoint: State | None = None
    turn_start: ObjectId | None = None
    began_on: ObjectId | None = None
    unfinished: list[tuple[State, str | None]] = dataclasses.field(default_factory=list)
    turn: int = 0
    turn_had_tools: bool = False
    inner: int = 0
    marks: dict[int, int] = dataclasses.field(default_factory=dict)
    open_tools: dict[CallId, Intent] = dataclasses.field(default_factory=dict)
    last_tool_seq: int = 0
    behind: dict[CallId, Span] = dataclasses.field(default_factory=dict)
    ended: Ended | None = None
    tool_calls: int = 0
    changed_files: bool = False
    outside: Outside = dataclasses.field(default_factory=Outside)
    boot: str = ""
    wall_ns: int = 0
    seq: int = 0
    walls: array[int] = dataclasses.field(default_factory=lambda: array("q"))

    def bury(self, gap: str | None, state: State) -> None:
        """`state` comes next after `checkpoint`; `gap` was missing before it, if anything was."""
        if self.buried_gap is None and gap is not None:
            self.buried_gap, self.buried_by, self.unburied = gap, state.position, self.checkpoint

    @property
    def run(self) -> str:
        """The run's id: of the fork, where it is one."""
        first = self.forked or self.started
        return first.run if first is not None else ""

    def children(self, home: Path) -> list[RunId]:
        """The runs that tool calls are which C may be older than.

        Beside a tool that still runs, a child run ends without a checkpoint of its caller's.
        """
        calls = dict.fromkeys((*self.open_tools, *self.behind))
        return list(child_runs(home, RunId(self.run), calls).values())

    def turn_ended(self, turn: int, root: ObjectId) -> None:
        """`turn` has ended in the state `root`; perhaps after the next one was opened."""
        self.turn_start = root
        if turn < self.turn:
            self.began_on = root

    def moment_of(self, state: State) -> int:
        """The moment (wall clock, ns) whose state it is: what was written by then is in it.

        The entry behind `position` was written right after the checkpoint was asked for.
        """
        behind = state.position
        return self.walls[behind] if behind < len(self.walls) else self.wall_ns

    def position_at(self, moment_ns: int) -> int:
        """Seq of the last entry that was written by then."""
        seq = len(self.walls)
        while seq and self.walls[seq - 1] > moment_ns:
            seq -= 1
        return seq


def child_runs(home: Path, parent: RunId, calls: Iterable[CallId]) -> dict[CallId, RunId]:
    """The runs that `calls` of `parent` are; most calls are none.

    A child run is called as its call is. Where a name was configured, earlier versions gave it that
    one: its id ends in the same digits.

    Raises:
        DamagedJournal, StoreUnavailable: a run may be one, and its journal cannot be read.
    """
    by_digits: dict[str, list[str]] = {}
    runs = home / "runs"
    try:
        names = os.listdir(runs)
    except OSError as error:
        raise StoreUnavailable(f"its runs cannot be listed: {error}", where=str(runs)) from error
    for run in names:
        by_digits.setdefault(run.rpartition("-")[2], []).append(run)
    found = {}
    for call in calls:
        child = derived_run_id(call.callable, parent, str(call))
        alike = by_digits.get(child.rpartition("-")[2], ())
        for run in sorted(alike, key=lambda run: run != child):
            if _is_child(runs / run, parent, call):
                found[call] = RunId(run)
                break
    return found


def _is_child(directory: Path, parent: RunId, call: CallId) -> bool:
    if not (directory / "journal").is_dir():  # killed before it began
        return False
    first = next(read_journal(directory), None)
    began = first.body if first is not None else None
    if not isinstance(began, Started) or began.run != directory.name:
        return False
    return (began.lineage.parent, began.lineage.call) == (parent, str(call))


def find_stop(records: Iterable[Record]) -> Stop:
    """Fold a journal into where its run stopped."""
    stop = Stop()
    for record in records:
        entry, body = record.entry, record.body
        stop.seq, stop.boot, stop.wall_ns = entry.seq, entry.boot, entry.wall_ns
        stop.walls.append(entry.wall_ns)
        if body is not None:
            _fold(stop, body, entry.turn, entry.seq)
    return stop


def _fold(stop: Stop, body: Body, turn: int, seq: int) -> None:
    if isinstance(body, Started):
        stop.started = body
    elif isinstance(body, Forked):
        _fork(stop, body)
    elif isinstance(body, TurnOpened):
        stop.ended, stop.began_on = None, stop.turn_start
        stop.turn, stop.turn_had_tools, stop.inner = body.turn, False, 0
    elif isinstance(body, Captured):
        state = State(body.turn, body.inner, ObjectId(body.root), body.position, spool=body.spool)
        stop.unfinished.append((state, stop.gap))
    elif isinstance(body, Checkpoint):
        _checkpoint(stop, body)
    elif isinstance(body, RolledBack):
        stop.turn_start = ObjectId(body.root)
    elif isinstance(body, Ended):
        stop.ended = body
    elif isinstance(body, Noted) and body.topic == GAP:
        stop.gap = body.text
    elif isinstance(body, Resumed):
        stop.gap = None  # what came after it was done again
        stop.unfinished = [(state, None) for state, _ in stop.unfinished]
    else:
        _call(stop, body, turn, seq)


def _call(stop: Stop, body: Body, turn: int, seq: int) -> None:
    if isinstance(body, Request | Intent | Recorded):
        stop.ended = None
    if isinstance(body, Observed):
        stop.changed_files = stop.changed_files or Effect.FILES in body.verdict.effects
    elif isinstance(body, Intent):
        stop.tool_calls += 1
        stop.outside.note(body, turn)
        stop.open_tools[body.call] = body
        stop.last_tool_seq = seq
        _seen(stop, body.call, seq)
    elif isinstance(body, Result):
        stop.open_tools.pop(body.call, None)
        _seen(stop, body.call, seq)
        stop.turn_had_tools = stop.turn_had_tools or turn == stop.turn
    elif isinstance(body, Superseded):
        stop.behind = {c: span for c, span in stop.behind.items() if span.first <= body.after}


def _seen(stop: Stop, call: CallId, seq: int) -> None:
    stop.behind[call] = stop.behind.get(call, Span(seq, seq))._replace(last=seq)


def _fork(stop: Stop, body: Forked) -> None:
    # Entries behind the forked state may be shared (its own checkpoint is); they don't count.
    stop.forked, stop.forked_seq = body, stop.seq
    stop.behind.clear()
    last = stop.seq if body.lineage.seq is None else body.lineage.seq
    stop.unfinished = [(state, gap) for state, gap in stop.unfinished if state.position <= last]
    stop.open_tools.clear()
    stop.outside.forget_behind(body.turn)
    stop.gap = None
    if stop.buried_by > last:
        stop.buried_gap = stop.unburied = None
    stop.turn, state = body.turn, stop.checkpoint
    stop.inner = state.inner if state is not None else 0
    stop.turn_had_tools = stop.inner > 0


def _checkpoint(stop: Stop, body: Checkpoint) -> None:
    if body.protection is Protection.UNPROTECTED:
        return
    root = ObjectId(body.root)
    state = State(body.turn, body.inner, root, body.position, body.processes)
    gaps = [gap for one, gap in stop.unfinished if one.position <= body.position]
    stop.unfinished = stop.unfinished[len(gaps) :]
    stop.bury(next(filter(None, gaps), None), state)
    stop.checkpoint = state
    stop.behind = {c: span for c, span in stop.behind.items() if span.last > body.position}
    stop.marks[body.turn] = max(stop.marks.get(body.turn, 0), body.inner)
    if body.inner == 0:
        stop.turn_ended(body.turn, root)
    if body.turn == stop.turn:
        stop.inner = max(stop.inner, body.inner)
