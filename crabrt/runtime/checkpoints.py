"""Capturing one state, on the engine's thread: look, read, verdict, `captured`.

The order is the invariant "content before reference": objects are written, then `captured` names
them; objects are durable, then `checkpoint` names them and is made durable itself (`committing`).
That durable entry is the commit point (``core.entries``).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from crabrt.core.content import Content, piece_ids
from crabrt.core.entries import Captured, Checkpoint, Exposed, Noted, Observed
from crabrt.core.failpoints import declare
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry
from crabrt.core.verdicts import NETWORK_TOO, Consistency, Effect, Protection, Verdict
from crabrt.errors import CrabError, Damaged, DamagedObject, StoreUnavailable
from crabrt.inspector import CallFact, Observation, caches, classify
from crabrt.inspector.lasting import compare
from crabrt.inspector.network import Network
from crabrt.inspector.observer import Foreign
from crabrt.process.family import Intervals
from crabrt.process.imaging import Taken
from crabrt.process.sighting import Sighting
from crabrt.runtime import reaching, spooled
from crabrt.runtime.alive import Alive, unimaged
from crabrt.runtime.committing import Captive
from crabrt.runtime.engine import Fate, Job
from crabrt.runtime.losses import ObserverWarning
from crabrt.store.contents import read_bytes
from crabrt.workspace import Change, diff_roots, read_tree

if TYPE_CHECKING:
    from crabrt.runtime.session import Session

FP_SCANNED = declare("checkpoint.scanned", "the turn is closed; nothing of its state is written")
FP_FLUSHED = declare("checkpoint.flushed", "content is written; no entry names it: it is garbage")
FP_CAPTURED = declare("checkpoint.captured", "`captured` is written, nothing is synced")


class Seen(msgspec.Struct, frozen=True):
    """The state of the workspace as one job found it."""

    root: ObjectId
    changes: tuple[Change, ...]
    consistency: Consistency
    not_captured: tuple[tuple[bytes, str], ...]
    unobserved: tuple[str, ...]
    scan_ms: float
    observer: str
    foreign: Foreign = {}
    network: Network = Network()
    alive: Sighting | None = None
    left: Sighting | None = None
    taken: Taken = Taken()


def look(session: Session) -> Seen:
    """Scan, and read what may have changed; objects are put, not flushed.

    Raises:
        CrabError, OSError: the workspace or the store cannot be used.
    """
    engine = session.engine
    started = time.perf_counter()
    looked = engine.observer.look(engine.tracker)
    scan, by = looked.scan, looked.observer
    scan_ms = (time.perf_counter() - started) * 1e3
    known = engine.tracker.root
    if scan.clean and known is not None:
        engine.observer.settled()
        changes = _changes(session, known)
        return Seen(
            known,
            changes,
            Consistency.EXACT,
            scan.not_captured,
            looked.unobserved,
            scan_ms,
            by,
            looked.foreign,
        )
    if known is not None:  # what nobody can make again is read first
        in_order = caches.last(scan.seen, lambda one: engine.caches.within(one.dir.path))
        scan = dataclasses.replace(scan, seen=tuple(in_order))
    snapshot = engine.tracker.capture(scan, engine.writer, engine.early.reads)
    engine.observer.settled()
    same = session.turn_start is not None and snapshot.previous == session.turn_start
    changes = snapshot.changes if same else _changes(session, snapshot.root)
    return Seen(
        snapshot.root,
        changes,
        snapshot.consistency,
        snapshot.not_captured,
        (*snapshot.unobserved, *looked.unobserved),
        scan_ms,
        by,
        looked.foreign,
    )


def _changes(session: Session, root: ObjectId) -> tuple[Change, ...]:
    start = session.turn_start
    if start is None or root == start:  # a baseline is compared with nothing
        return ()
    return tuple(diff_roots(session.engine.writer, start, root))


def make(
    session: Session, job: Job, calls: Sequence[CallFact], asked: reaching.Asked | None = None
) -> None:
    """Run `job`: when this returns, it is captured or failed. Never raises.

    What goes wrong is the job's fate. What was captured is on its way to be durable.

    Args:
        session: the run.
        job: what is to be made.
        calls: the tool calls of the turn so far.
        asked: about the network; None where this process did not make the turn.
    """
    captive = None
    try:
        # A later one sees all that it would: what nobody waits for any more is not made.
        if job.fate is not Fate.TOO_LATE or session.engine.latest is job:
            with session.engine.writer.commit():
                captive = _make(session, job, calls, asked)
    except Exception as error:  # noqa: BLE001  a bug here must not kill the user's loop; it is reported
        _failed(session, job, error)
    finally:
        reaching.answered(session.engine, asked)
    if captive is None:
        session.spool.drop(_spool_name(job))
        job.release()
    else:
        session.engine.committer.put(captive)


def _make(
    session: Session, job: Job, calls: Sequence[CallFact], asked: reaching.Asked | None
) -> Captive | None:
    """Capture; None if it does not count."""
    started = time.perf_counter()
    engine, writer = session.engine, session.engine.writer
    if engine.stale or engine.committer.epoch != engine.epoch:
        engine.committer.drain()
        engine.epoch = engine.committer.epoch  # what is lost from here on ends it
        engine.forget()
    epoch, stored_before = engine.epoch, writer.bytes_stored
    if session.epoch != epoch:
        _forget_lost(session)
        session.epoch = epoch
    seen = _and_network(_snapshot(session, job, asked), reaching.look(engine, asked))
    stored_before -= engine.early.settled()
    FP_SCANNED()
    verdict = classify(calls, _observation(session, job, seen))
    writer.flush()
    FP_FLUSHED()
    release = writer.hold()
    try:
        entry = _captured(session, job, seen, verdict)
    except BaseException:
        release()
        raise
    if entry is None:
        release()
        return None
    entry = msgspec.structs.replace(
        entry,
        bytes_stored=writer.bytes_stored - stored_before,
        capture_ms=round((time.perf_counter() - started) * 1e3, 3),
    )
    engine.keep_up(partial(_keep_up, session))
    failed = partial(_failed, session, job)
    alive = Alive(engine.custody, seen.taken) if seen.taken.trees else None
    return Captive(job, session.journal, entry, epoch, started, release, failed, alive)


def _snapshot(session: Session, job: Job, asked: reaching.Asked | None) -> Seen:
    """The files, and what is alive beside them, as of one moment as far as that can be had."""
    engine = session.engine
    tools: Intervals | None = ()
    if asked is not None:  # else another process made the turn, and this one adopted what lives
        tools = asked.interval.tools if asked.wraps_tools else None
    shot = engine.custody.snapshot(
        tools,
        lambda: look(session),
        lambda trees: session.spool.make(_spool_name(job), trees),
        engine.wanted_by,
    )
    taken = shot.taken
    if taken.is_full:
        session.spool.leave_memory()
    if taken.trees:
        into = taken.into or session.spool.make(_spool_name(job), ())
        try:
            taken = spooled.noted(taken, into)
        except StoreUnavailable:
            session.spool.leave_memory()
            raise
    else:
        session.spool.drop(_spool_name(job))  # whoever was to be imaged has ended
    seen = msgspec.structs.replace(
        shot.files,
        alive=shot.alive,
        left=shot.left,
        taken=taken,
        unobserved=(*shot.files.unobserved, *engine.custody.unobserved),
    )
    if seen.consistency is Consistency.TORN:
        return seen
    knows = shot.alive is not None and asked is not None and asked.wraps_tools
    alone = not job.beside and not engine.config.shared
    if not shot.exact:
        return msgspec.structs.replace(seen, consistency=Consistency.PER_FILE)
    if knows and alone:  # no tool runs, and nothing that one left: all was read of one instant
        return msgspec.structs.replace(seen, consistency=Consistency.EXACT)
    return seen


def _spool_name(job: Job) -> str:
    return f"{job.turn}.{job.inner}"


def _and_network(seen: Seen, network: Network) -> Seen:
    if not network.watched or network.lost is not None:
        return msgspec.structs.replace(seen, network=network)
    by = seen.observer + NETWORK_TOO
    return msgspec.structs.replace(seen, network=network, observer=by)


def _forget_lost(session: Session) -> None:
    """After a failed sync: a turn whose first state was lost has nothing to be compared with."""
    start = session.turn_start
    if start is not None and not whole(session.engine.writer, start, session.engine.tracker.root):
        session.root = session.turn_start = None


def _captured(session: Session, job: Job, seen: Seen, verdict: Verdict) -> Checkpoint | None:
    """Let the capture count, and its checkpoint; None where a gate gave up on it."""
    same = seen.root == session.root and Effect.PROCESSES not in verdict.effects
    inherited = same and job.turn > 0 and not seen.taken.directories
    if not _count(session, job, seen, verdict):
        _keep_uncounted(session)
        return None
    FP_CAPTURED()
    return Checkpoint(
        turn=job.turn,
        inner=job.inner,
        root=seen.root,
        position=job.position,
        protection=Protection.INHERITED if inherited else Protection.DURABLE,
        consistency=seen.consistency,
        scan_ms=round(seen.scan_ms, 3),
        not_captured=session.first_time(seen.not_captured),
        shared=session.engine.config.shared,
        observer=seen.observer,
        unimaged=unimaged(seen.taken.trees),
        frozen_ms=round(seen.taken.frozen_ms, 3),
    )


def _keep_up(session: Session) -> None:
    _save_caches(session)
    _audit(session)


def _observation(session: Session, job: Job, seen: Seen) -> Observation:
    engine = session.engine

    def read(entry: Entry) -> bytes:
        return b"" if entry.content is None else read_bytes(entry.content, engine.writer)

    return Observation(
        seen.changes,
        seen.consistency,
        seen.unobserved,
        caches=engine.caches.among(seen.changes, read),
        skipped=engine.config.regenerable == "skip",
        blind=session.turn_start is None and job.turn > 0,
        beside=tuple(job.beside),
        foreign=seen.foreign,
        network=seen.network,
        lasting=None if seen.alive is None else compare(session.alive, seen.alive),
    )


def _keep_uncounted(session: Session) -> None:
    """The tracker goes on from a state that no entry names: for gc, the index has to name it."""
    engine = session.engine
    engine.committer.drain()  # the index may name nothing but what is durable
    try:
        engine.writer.sync()
        engine.tracker.save()
    except (CrabError, OSError):
        engine.stale = True


def _audit(session: Session) -> None:
    """Now and then, while nobody waits: did the observer miss anything? If so, it is told."""
    engine = session.engine
    try:
        missed = engine.observer.audit(engine.tracker, engine.wanted)
    except (CrabError, OSError):
        return  # what stands in its way stands in the way of the next look, which says so
    if missed:
        text = f"{engine.observer.name} missed changes; they are captured by the next look"
        session.journal.append(Noted("observer", text, missed), turn=session.machine.turn)
        first = f"{text}: {os.fsdecode(missed[0])}"
        session.losses.mention(first, ObserverWarning, once="observer")


def _save_caches(session: Session) -> None:
    """The turn is safe without it: a next run has more to read."""
    try:
        session.engine.tracker.save()
        session.engine.writer.catalogue()
    except (CrabError, OSError) as error:
        session.journal.append(Noted("index", f"not saved: {error}"), turn=session.machine.turn)


def _count(session: Session, job: Job, seen: Seen, verdict: Verdict) -> bool:
    """Let the capture count, unless a gate gave up on it (and has said so); whether it counts."""
    session.settle_gap()
    if not job.settle(Fate.CAPTURED):
        return False
    journal = session.journal
    if job.turn > 0 and job.inner == 0:
        journal.append(Observed(job.turn, verdict), turn=job.turn)
    spool = os.fsencode(seen.taken.into) if seen.taken.into is not None else b""
    journal.append(Captured(job.turn, job.inner, seen.root, job.position, spool), turn=job.turn)
    session.root = seen.root
    if job.inner == 0:
        session.root_turn, session.turn_start = job.turn, seen.root
        if seen.left is not None:
            session.alive = seen.left
    job.captured.set_result(None)
    return True


def _failed(session: Session, job: Job, error: BaseException) -> None:
    session.engine.stale = True
    if not job.settle(Fate.FAILED, error):
        job.fail_durable(error)
    session.lose_protection(job.turn, str(error) or type(error).__name__)


def write_off(session: Session, turn: int, reason: str) -> None:
    """Journal that `turn` is unprotected.

    Raises:
        CrabError: the journal cannot be written either.
    """
    text = reason.encode("utf-8", "backslashreplace").decode()  # it may name any path
    session.journal.append(Exposed(turn, text), turn=turn)


def whole(reader: ObjectReader, root: ObjectId, base: ObjectId | None) -> bool:
    """Whether everything that `root` has and `base` has not can be read from the store.

    Used on a `captured` entry whose process died before it was durable.
    """
    try:
        if base is None:
            entries = [entry for _, entry in read_tree(reader, root)]
        else:
            changes = diff_roots(reader, base, root)
            entries = [change.after for change in changes if change.after is not None]
        for entry in entries:
            if entry.content is not None and not _present(reader, entry.content):
                return False
    except (DamagedObject, Damaged):
        return False
    return True


def _present(reader: ObjectReader, content: Content) -> bool:
    return all(reader.contains(piece) for piece in piece_ids(content, reader.get))
