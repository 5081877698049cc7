"""What a journal says, as values to show: a run, its turns, their calls. Frozen, small, encodable.

A row holds what a line of ``crab log`` needs. Arguments, results and messages stay in the journal:
`details.turn_detail` streams them for one turn.
"""

from __future__ import annotations

from typing import Final

import msgspec

from crabrt.core.entries import CallId, Failure, Lineage, Payload
from crabrt.core.ids import ObjectId
from crabrt.core.verdicts import Consistency, Effect, Likely, Prior, Protection
from crabrt.journal.reading import Position

OPEN, DONE, FAILED, FORKED = "open", "done", "failed", "forked"
RUNNING, CRASHED, DAMAGED, ENDED = "running", "crashed", "damaged", "ended"


class ToolView(msgspec.Struct, frozen=True, array_like=True):
    """One tool call of a turn. A call that ran again on resume is one call.

    Attributes:
        call: its identity.
        ok: True: it returned; False: it raised or was cancelled; None: it has no result.
        seq: of its (first) intent.
        duration_ms: of the run that counts.
        prior: what it was declared to do.
        cancelled: it was cancelled.
        times: how often it ended.
        guess: what it was taken for, where nothing is declared; None: nobody guessed.
        began_ns: wall clock when it (last) began.
        acted: False: it was stopped or cancelled before it did anything.
    """

    call: CallId
    ok: bool | None
    seq: int
    duration_ms: float = 0.0
    prior: Prior = Prior.AUTO
    cancelled: bool = False
    times: int = 0
    guess: Likely | None = None
    began_ns: int = 0
    acted: bool = True

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.call.callable

    @property
    def outside(self) -> bool:
        """Whether it was declared external, or taken for it."""
        return self.prior is Prior.EXTERNAL or self.guess is Likely.EXTERNAL


class ModelView(msgspec.Struct, frozen=True, array_like=True):
    """One model call of a turn.

    Attributes:
        call, ok, seq, cancelled, times, began_ns: as in `ToolView`.
        model: the model asked, if the adapter knew.
        wait_ms: from sending to the (whole) reply.
        tokens_in, tokens_out, cost_usd: as reported, else None.
        streamed: the reply came in pieces.
    """

    call: CallId
    ok: bool | None
    seq: int
    model: str | None = None
    wait_ms: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    streamed: bool = False
    cancelled: bool = False
    times: int = 0
    began_ns: int = 0


class InnerView(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint ``turn.n`` inside a turn; its attributes are as in `core.entries`."""

    inner: int
    root: ObjectId
    position: int
    protection: Protection
    wall_ns: int
    processes: bytes = b""


class NoteView(msgspec.Struct, frozen=True, array_like=True):
    """Something a person should know."""

    topic: str
    text: str
    paths: tuple[bytes, ...] = ()


RESUMED, ROLLED_BACK, ENDING = "resumed", "rolled back", "ended"


class MoveView(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened to the run as a whole.

    Attributes:
        kind: ``resumed``, ``rolled back``, ``forked`` (here this run's own history begins) or
            ``ended``.
        seq, wall_ns: of its entry.
        to: the turn whose state the run went on from; None for an end.
        how: the mode of a resume, the parent of a fork, the status of an end.
    """

    kind: str
    seq: int
    wall_ns: int
    to: int | None = None
    how: str = ""


class TurnView(msgspec.Struct, frozen=True, array_like=True):
    """One turn.

    Attributes:
        turn: its number; 0 is the workspace as the run found it.
        base: the turn on whose state it began.
        started_ns: wall clock.
        first: the place before its first entry; None where that is the journal's beginning.
        last_seq: the last entry about it (labels, pins and other runs' entries aside).
        verdict: effect classes; ``("none",)`` when nothing changed; empty while not yet known.
        evidence: why, one phrase each.
        files_added, files_changed, files_removed: counts of paths.
        sample: the first changed paths.
        unobserved: what could not be looked at.
        tools, models: its calls, in order.
        root: the state after it, once captured; an inherited checkpoint's is the earlier one's.
        position: seq of the last entry that belongs to that state.
        protection: of its checkpoint. A thinned turn keeps it; see `thinned_ns`.
        consistency: of which instant its files are.
        bytes_stored: added to the store for it, inner checkpoints included.
        scan_ms, capture_ms, durable_ms: of its checkpoint.
        exposed_ms: how long gates held the loop because of it.
        unprotected: why it lost protection, if it did.
        not_captured: paths and why.
        inner: its inner checkpoints.
        shared: another run family worked in the same directory.
        notes: what a person should know.
        labels: names people or the loop gave it or a point inside it.
        pinned: retention may not thin it.
        thinned_ns, thinned_why: when and why retention dropped its files, else 0 and empty.
        observer: who said what may have changed; empty while it has no checkpoint.
        processes: id of the root of what was alive after it; empty if nothing was.
        frozen_ms: how long processes stood still for its checkpoint.
        moves: what happened to the run while this was its latest turn.
    """

    turn: int
    base: int
    started_ns: int
    first: Position | None = None
    last_seq: int = 0
    verdict: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    files_added: int = 0
    files_changed: int = 0
    files_removed: int = 0
    sample: tuple[bytes, ...] = ()
    unobserved: tuple[str, ...] = ()
    tools: tuple[ToolView, ...] = ()
    models: tuple[ModelView, ...] = ()
    root: ObjectId | None = None
    position: int = 0
    protection: Protection = Protection.PENDING
    consistency: Consistency = Consistency.EXACT
    bytes_stored: int = 0
    scan_ms: float = 0.0
    capture_ms: float = 0.0
    durable_ms: float = 0.0
    exposed_ms: float = 0.0
    unprotected: tuple[str, ...] = ()
    not_captured: tuple[tuple[bytes, str], ...] = ()
    inner: tuple[InnerView, ...] = ()
    shared: bool = False
    notes: tuple[NoteView, ...] = ()
    labels: tuple[str, ...] = ()
    pinned: bool = False
    thinned_ns: int = 0
    thinned_why: str = ""
    observer: str = ""
    processes: bytes = b""
    frozen_ms: float = 0.0
    moves: tuple[MoveView, ...] = ()

    @property
    def verdict_names(self) -> list[str]:
        """The effect classes, as in ``--json``."""
        return list(self.verdict)

    @property
    def outside(self) -> bool:
        """Whether it acted outside, or may have: by its verdict, or by one of its calls."""
        return Effect.EXTERNAL in self.verdict or any(tool.outside for tool in self.tools)

    @property
    def files(self) -> int:
        """How many files were added, changed or removed."""
        return self.files_added + self.files_changed + self.files_removed

    @property
    def model_wait_ms(self) -> float:
        """How long the loop waited for models."""
        return sum(model.wait_ms for model in self.models)

    @property
    def tokens_in(self) -> int:
        """Tokens sent, as far as reported."""
        return sum(model.tokens_in or 0 for model in self.models)

    @property
    def tokens_out(self) -> int:
        """Tokens received, as far as reported."""
        return sum(model.tokens_out or 0 for model in self.models)

    @property
    def cost_usd(self) -> float:
        """What the model calls cost, as far as reported."""
        return sum(model.cost_usd or 0.0 for model in self.models)

    @property
    def restorable(self) -> bool:
        """Whether its files can be brought back."""
        return self.root is not None and not self.thinned_ns


MISSING: Final = "gap"
"""Topic of the note that entries are missing before it: the journal could not be written."""


class RunView(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        run, name: which. Empty before its first entry is read.
        workspace_path, workspace_id, lineage, argv, cwd, agent, arguments, version: as it started.
        exclude: the patterns of all that it ever excluded.
        status: ``open``, ``done``, ``failed``, or ``forked`` (never taken up); whether an open run
            is alive is the lease's to say: see `live_status`.
        started_ns, updated_ns: wall clock of its first and last entry.
        pid: the process that wrote last.
        turn: the latest turn.
        resumed: how often it was taken up again.
        forked_at: the turn it was forked at, or None.
        restorable: the latest turn with a checkpoint, or None.
        root, root_turn, root_ns: the newest state known of the workspace, its turn, and since when.
        labels: label to (turn, inner).
        pins: turns that were pinned or unpinned.
        result, failure: how it ended.
        exit_ms: how long its end waited for the last checkpoint.
        gaps: from when to when (wall clock) it had no owner: from the last entry of one, who died
            or ended, to the first of the next.
        lacks_entries: whether some could not be written, as a note (`MISSING`) says.
    """

    run: str = ""
    name: str = ""
    workspace_path: bytes = b""
    workspace_id: str = ""
    lineage: Lineage = Lineage("")
    argv: tuple[str, ...] = ()
    cwd: bytes = b""
    agent: str | None = None
    arguments: Payload = Payload()
    version: str = ""
    status: str = OPEN
    started_ns: int = 0
    updated_ns: int = 0
    pid: int = 0
    turn: int = 0
    resumed: int = 0
    forked_at: int | None = None
    restorable: int | None = None
    root: ObjectId | None = None
    root_turn: int = 0
    root_ns: int = 0
    labels: dict[str, tuple[int, int]] = {}
    pins: dict[int, bool] = {}
    result: Payload = Payload()
    failure: Failure | None = None
    exit_ms: float = 0.0
    exclude: tuple[str, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    lacks_entries: bool = False

    def worked_ns(self, start_ns: int, end_ns: int) -> int:
        """How long somebody worked on the run between two moments: the gaps do not count."""
        away = (min(end, end_ns) - max(start, start_ns) for start, end in self.gaps)
        return max(0, end_ns - start_ns - sum(ns for ns in away if ns > 0))


def plausible(amount: float) -> float:
    """A duration (ms) or a cost (USD) as an entry says it; 0 for what no clock or bill can say."""
    return amount if 0 <= amount < 1e15 else 0.0


def live_status(status: str, *, held: bool, last_words: str = "") -> str:
    """The status to show: an open run is ``running`` while its lease is held, else ``crashed``.

    Or ``ended``: its loop returned or raised, and only the journal could not be told (`last_words`
    of the lease).
    """
    if status == FORKED and held:
        return RUNNING
    if status != OPEN:
        return status
    if held:
        return RUNNING
    return ENDED if last_words else CRASHED
