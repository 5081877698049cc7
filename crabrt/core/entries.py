"""Journal entries: the record of a run, one frozen struct for each kind of thing that can happen.

Kinds are append-only names. As a journal has them they lie in envelopes (`core.envelopes`).

**The commit point.** The durable `Checkpoint` entry is *the* moment a turn becomes restorable. What
it names (the root, all it reaches, every payload of the entries before it) is durable before the
entry is; recovery starts from the last one.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from crabrt.core.content import Content
from crabrt.core.verdicts import (
    Consistency,
    ExternalKind,
    Guess,
    InDoubtPolicy,
    Prior,
    Protection,
    Verdict,
)


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """An encoded value: small ones inline, large ones in the object store.

    Attributes:
        inline: the msgpack bytes, or None when they are in `content`.
        content: where the bytes are, or None when they are `inline`.
        missing: why the value could not be encoded (both others are None then).
    """

    inline: bytes | None = None
    content: Content | None = None
    missing: str | None = None


class CallId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The identity of a call: where in the program it is made, not when.

    Attributes:
        scope: the path of tasks, threads and child runs, each named by spawn order: ``"0"``,
            ``"0/2"``.
        name: the callable's name.
        occurrence: the how-manieth call of that name in that scope, from 0.
    """

    scope: str
    name: str
    occurrence: int

    @property
    def callable(self) -> str:
        """The callable's own name; where calls have no order, `name` adds ``~`` and a digest."""
        return self.name.rpartition("~")[0] if self.scope.endswith("/~") else self.name

    @property
    def inside(self) -> str:
        """The scope of what happens inside of this call."""
        return f"{self.scope}/{self.name}#{self.occurrence}"

    def is_within(self, scope: str) -> bool:
        """Whether it is made in `scope`, or in one that began there."""
        return self.scope == scope or self.scope.startswith(f"{scope}/")

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}#{self.occurrence}"


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An exception as it is sealed.

    Attributes:
        tag: registered tag, else the qualified class name.
        message: ``str(exception)``.
        state: its encoded arguments and attributes, as far as they could be.
    """

    tag: str
    message: str
    state: Payload


INTERRUPTIONS = frozenset(
    {"asyncio.exceptions.CancelledError", "KeyboardInterrupt", "SystemExit", "GeneratorExit"}
)
"""Tags of failures by which somebody stopped a loop from outside: Ctrl-C, a cancelled task."""


class Body(msgspec.Struct, frozen=True):
    """Base of the bodies. `kind` is the stable name; `optional` lets older readers skip it."""

    kind: ClassVar[str] = ""
    optional: ClassVar[bool] = False


class Lineage(msgspec.Struct, frozen=True):
    """Where a run comes from.

    Attributes:
        family: id of the oldest ancestor (its own id for a run that has none).
        parent: the run it was forked from or is a child of, or None.
        seq: the last entry of the parent that is part of this run's history (forks).
        chain: the parent's chain hash after that entry (forks).
        call: the parent's call that this run is (child runs), as ``str(CallId)``.
    """

    family: str
    parent: str | None = None
    seq: int | None = None
    chain: bytes | None = None
    call: str | None = None


class Started(Body, frozen=True):
    """A run begins. Always the first entry of a journal that was not forked.

    `exclude`: patterns given in code or configuration, which nobody could read elsewhere later.
    """

    kind = "started"
    run: str
    name: str
    workspace_path: bytes
    workspace_id: str
    lineage: Lineage
    argv: tuple[str, ...] = ()
    cwd: bytes = b""
    agent: str | None = None
    arguments: Payload = Payload()
    version: str = ""
    pid: int = 0
    exclude: tuple[str, ...] = ()


class Forked(Body, frozen=True):
    """The end of the history copied from a parent: what follows is this run's own.

    ``cut_off``: as in `Ended`, if the parent ended and made no call after this.
    """

    kind = "forked"
    run: str
    name: str
    workspace_path: bytes
    workspace_id: str
    lineage: Lineage
    turn: int
    cut_off: tuple[CallId, ...] = ()


class Resumed(Body, frozen=True):
    """A process took the run up again.

    Attributes:
        mode: ``"restored"`` (the workspace was put to turn `turn`) or ``"in-place"`` (same boot, no
            open intent: the disk already was the state).
        turn: the turn whose state the run goes on from.
        position: seq up to which the journal describes that state. After a restore, results of
            tools between it and this entry are void: their effects are gone from the disk
            (external effects and model replies stay).
        exclude: patterns in force from here on; what a run ever excluded stays excluded.
    """

    kind = "resumed"
    mode: str
    turn: int
    position: int
    pid: int
    argv: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class TurnOpened(Body, frozen=True):
    """Turn `turn` begins on the state of turn `base` (the one before, except after a rollback)."""

    kind = "turn"
    turn: int
    base: int


class Request(Body, frozen=True):
    """A model call is about to be sent."""

    kind = "request"
    call: CallId
    digest: bytes
    arguments: Payload
    messages: Content | None = None
    model: str | None = None


class Response(Body, frozen=True):
    """A model call came back (or raised). Seals the request with the same `call`."""

    kind = "response"
    call: CallId
    wait_ms: float
    result: Payload = Payload()
    failure: Failure | None = None
    cancelled: bool = False
    streamed: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


class External(msgspec.Struct, frozen=True):
    """The declaration of an external effect, as the intent records it."""

    kind: ExternalKind = ExternalKind.IRREVERSIBLE
    in_doubt: InDoubtPolicy = InDoubtPolicy.ASK
    idempotency_key: str | None = None
    target: str | None = None
    has_check: bool = False
    has_undo: bool = False


class Intent(Body, frozen=True):
    """A tool is about to act.

    `prior`: what it is declared to do. `guess`: where nothing is declared, what the call was taken
    for; None in journals of versions that did not guess.
    """

    kind = "intent"
    call: CallId
    digest: bytes
    arguments: Payload
    prior: Prior = Prior.AUTO
    external: External | None = None
    guess: Guess | None = None


class Result(Body, frozen=True):
    """A tool acted (or raised, or was cancelled). Seals the intent with the same `call`.

    A later result with the same `call` supersedes an earlier one (the call ran again on resume).

    Attributes:
        left: how many processes were alive when it ended that had begun while it ran. Until a
            checkpoint has them, this is all that is known of them.
        acted: False: it was stopped or cancelled before it did anything.
    """

    kind = "result"
    call: CallId
    duration_ms: float
    result: Payload = Payload()
    failure: Failure | None = None
    cancelled: bool = False
    streamed: bool = False
    left: int = 0
    acted: bool = True


class Recorded(Body, frozen=True):
    """A value the loop must see again on resume: a time, a random number, ``recorded(fn)``."""

    kind = "recorded"
    call: CallId
    value: Payload


class Superseded(Body, frozen=True):
    """A call that ran again gave another result: calls opened after `after` never happened.

    Nor did those that were made inside of the call (`within`) when it ran before. But `kept` did:
    parallel ones that this resume has answered or made already; and so did all others that it made.

    They were made by a loop that had seen the old result. External ones stay on record: what left
    the machine did leave it.
    """

    kind = "superseded"
    after: int
    within: str = ""
    kept: tuple[CallId, ...] = ()


class Observed(Body, frozen=True):
    """The verdict over a closed turn."""

    kind = "verdict"
    turn: int
    verdict: Verdict


class Captured(Body, frozen=True):
    """Names and bytes of a turn's state are written, unsynced; recovery finishes the job.

    ``position`` is the seq of the last entry that belongs to the state: calls sealed at or before
    it are answered from the journal on resume. ``spool`` is the directory where images of processes
    lie until the checkpoint: with one that is gone, the state cannot be finished.
    """

    kind = "captured"
    turn: int
    inner: int
    root: bytes
    position: int
    spool: bytes = b""


class Checkpoint(Body, frozen=True):
    """THE COMMIT POINT: once this entry is durable, the turn can be restored. See the module.

    Attributes:
        turn, inner: which; inner is 0 for the end of a turn, n for the point ``turn.n`` inside it.
        root: id of the `core.trees.Root`.
        position: seq of the last entry that belongs to the state.
        protection: ``durable``, or ``inherited`` when nothing changed.
        bytes_stored: bytes added to packs for it.
        capture_ms: from the start of the scan until captured; durable_ms: until durable.
        not_captured: paths that could not be captured, and why, each only once a run.
        observer: who said what may have changed: ``scan``, ``fanotify``, or ``scan (why)``; and
            ``, network`` behind it where connections were watched without a loss.
        processes: id of the root of what was alive (``process.state``); empty: nothing was.
        unimaged: what of that does not come back, and why.
        frozen_ms: how long processes stood still for it.
    """

    kind = "checkpoint"
    turn: int
    inner: int
    root: bytes
    position: int
    protection: Protection = Protection.DURABLE
    consistency: Consistency = Consistency.EXACT
    bytes_stored: int = 0
    scan_ms: float = 0.0
    capture_ms: float = 0.0
    durable_ms: float = 0.0
    not_captured: tuple[tuple[bytes, str], ...] = ()
    shared: bool = False
    observer: str = "scan"
    processes: bytes = b""
    unimaged: tuple[str, ...] = ()
    frozen_ms: float = 0.0


class Gated(Body, frozen=True):
    """A gate held the loop back for `exposed_ms` because of the capture of turn `turn`."""

    kind = "gate"
    optional = True
    turn: int
    exposed_ms: float


class Exposed(Body, frozen=True):
    """A turn lost its protection, and why. The loop went on."""

    kind = "unprotected"
    turn: int
    reason: str


class RolledBack(Body, frozen=True):
    """The running loop put the workspace back to the state of turn `to`."""

    kind = "rollback"
    to: int
    root: bytes


class Labelled(Body, frozen=True):
    """A turn has a name."""

    kind = "label"
    turn: int
    label: str
    inner: int = 0


class Pinned(Body, frozen=True):
    """Retention may not (or may again) thin this turn."""

    kind = "pin"
    turn: int
    pinned: bool = True


class Unlabelled(Body, frozen=True):
    """A label is taken away again."""

    kind = "unlabel"
    label: str


class Thinned(Body, frozen=True):
    """Retention gave up the files of turns (their conversation stays). Written to the inbox.

    ``turns`` holds ranges (first, last), both included. It is durable before anything is dropped.
    """

    kind = "thinned"
    turns: tuple[tuple[int, int], ...]
    reason: str = ""


class Noted(Body, frozen=True):
    """Something a person should know: a divergence, files the loop itself wrote, a lost orphan."""

    kind = "note"
    optional = True
    topic: str
    text: str
    paths: tuple[bytes, ...] = ()


class Ended(Body, frozen=True):
    """The agent returned, raised, or the run was closed. A resumed run may go on after it.

    Attributes:
        status: ``"done"`` or ``"failed"``.
        exit_ms: how long the closing checkpoint held it.
        result: what it returned.
        failure: what it raised.
        cut_off: calls whose failure or cancellation is why the run ended, or came with that: a
            resume makes them again.
    """

    kind = "ended"
    status: str
    exit_ms: float
    result: Payload = Payload()
    failure: Failure | None = None
    cut_off: tuple[CallId, ...] = ()


BODIES: dict[str, type[Body]] = {
    cls.kind: cls
    for cls in (
        Started, Forked, Resumed, TurnOpened, Request, Response, Intent, Result, Recorded,
        Superseded,
        Observed, Captured, Checkpoint, Gated, Exposed, RolledBack, Labelled, Unlabelled,
        Pinned, Thinned, Noted, Ended,
    )
}  # fmt: skip
"""The body types by kind."""
