"""Which run is this call of an agent? A new one, one taken up again, or a child of a live one."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

from crabrt.core.config import RESUME_VARIABLE, Config
from crabrt.core.entries import CallId, Ended, Started
from crabrt.core.forks import fork_safe
from crabrt.core.ids import RunId
from crabrt.core.targets import Target, parse_target
from crabrt.errors import NotResumable, UsageError
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.operations.forking import fork_in_place
from crabrt.operations.targets import resolve
from crabrt.runtime import registry
from crabrt.runtime.exits import exit_by_kind
from crabrt.runtime.losses import RestoreWarning, warn
from crabrt.runtime.meaning import meant
from crabrt.runtime.opening import Setup, start, start_child
from crabrt.runtime.payloads import payload_bytes
from crabrt.runtime.recovery import Stop, child_runs, find_stop
from crabrt.runtime.relatives import family_externals
from crabrt.runtime.replay import Replay
from crabrt.runtime.resuming import attach, attach_child
from crabrt.runtime.session import Session
from crabrt.store import Store

_claimed: set[str] = set()
_lock = fork_safe(threading.Lock())


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What the journal of a run says about how it was called and how it ended."""

    run: RunId
    family: str
    started: Started
    ended: Ended | None
    arguments: bytes | None
    result: bytes | None
    failure_state: bytes | None
    workspace: Path


@dataclasses.dataclass(frozen=True)
class Entry:
    """The answer: a session to run the loop in, or the record of a run that is finished."""

    session: Session | None
    recorded: Recorded | None = None


def enter(setup: Setup, target: Target | None, wanted: str | None) -> Entry:
    """The run for one call of an agent.

    Args:
        setup: how it was called.
        target: what `resume` was asked for, or None.
        wanted: what ``CRAB_RESUME`` asks for, or None.

    Raises:
        NotFound, NotResumable, Busy, Damaged, StoreUnavailable: see `opening` and `resuming`.
    """
    if target is None and wanted is not None:
        target = _wanted(setup, wanted)
    if target is None:
        return Entry(start(setup))
    recorded = look_up(setup.config, target)
    if _ended_well(recorded) and _at_the_end(setup.config, target):
        return Entry(None, recorded)
    setup = dataclasses.replace(setup, name=recorded.started.name, workspace=recorded.workspace)
    run = recorded.run
    if not _at_the_end(setup.config, target):
        with Store.open(setup.config.home) as store:
            run = fork_in_place(store, str(target))
    return Entry(attach(setup, run, recorded.family), recorded)


def _wanted(setup: Setup, wanted: str) -> Target | None:
    """The target of ``CRAB_RESUME``, if this is the call it means; a target is taken once."""
    with _lock:
        if wanted in _claimed:
            return None
        asked = parse_target(wanted)
        target = meant(setup.config, setup.workspace, asked, "", lambda _: True)
        recorded = look_up(setup.config, target)
        started = recorded.started
        if started.agent != setup.agent:
            return None
        if started.arguments.missing is None and recorded.arguments != setup.arguments:
            _warn_of_other_arguments(recorded, setup)
            return None
        if setup.agent is None and started.name != setup.name:
            return None
        _claimed.add(wanted)
        exit_by_kind()
        os.environ.pop(RESUME_VARIABLE, None)  # what the loop starts is not asked to resume it
        return target


def _warn_of_other_arguments(recorded: Recorded, setup: Setup) -> None:
    """A program may call an agent for one task after another, and the run be of a later one."""
    warn(
        f"this call of {setup.agent} has other arguments than {recorded.run} had, so it begins a"
        f" new run, and all is done anew. To go on with {recorded.run}, call it as it was called"
        " (environment variables and dates are not recorded), or give the others by"
        f" {setup.agent}.resume({str(recorded.run)!r}, name=value)",
        RestoreWarning,
    )


def look_up(config: Config, target: Target) -> Recorded:
    """How the run of `target` was called and how it ended.

    Raises:
        NotFound, Ambiguous: there is no such run.
        Damaged: its journal cannot be read.
    """
    with RunIndex.open(config.home) as index, Store.open(config.home) as store:
        index.refresh()
        row = index.find(target.run)
        stop: Stop = find_stop(read_journal(run_dir(config.home, RunId(row.run))))
        if stop.started is None:
            raise NotResumable("its journal has no beginning", where=row.run)
        ended = stop.ended
        current = stop.forked or stop.started
        return Recorded(
            RunId(row.run),
            current.lineage.family,
            stop.started,
            ended,
            payload_bytes(stop.started.arguments, store),
            None if ended is None else payload_bytes(ended.result, store),
            None if ended is None or ended.failure is None
            else payload_bytes(ended.failure.state, store),
            Path(current.workspace_path.decode("utf-8", "surrogateescape")),
        )  # fmt: skip


def _ended_well(recorded: Recorded) -> bool:
    return (
        recorded.ended is not None
        and recorded.ended.failure is None
        and (recorded.ended.result.inline is not None or recorded.ended.result.content is not None)
    )


def _at_the_end(config: Config, target: Target) -> bool:
    """Whether `target` means where the run stopped (and so goes on in place).

    A turn that another was opened behind is not the end, though it may be the last one that can be
    restored: to go on from there is to go another way.
    """
    if target.at is None or target.at.turn == -1:
        return True
    with RunIndex.open(config.home) as index:
        index.refresh()
        state = resolve(index, target)
    return (state.turn, state.inner) == (state.run.turns, 0)


def enter_child(
    setup: Setup, parent: Session, call: CallId, *, settled_before: bool = False
) -> Entry:
    """The child run for an open call of `parent`: taken up again if it has begun before.

    Args:
        setup: how it was called.
        parent: whose call it is.
        call: the call.
        settled_before: `parent` went on from how the child ended, which is what it did end with.
    """
    if parent.replay is None:  # as fresh as its parent: nobody has made its calls before
        return Entry(_placed(start_child(setup, parent, call), parent, call))
    child = child_runs(setup.config.home, parent.id, [call]).get(call)
    if child is None:
        return Entry(_placed(_start_known(setup, parent, call), parent, call))
    recorded = look_up(setup.config, Target(child))
    if _ended_well(recorded):
        return Entry(None, recorded)
    session = _placed(attach_child(setup, parent, child), parent, call)
    if settled_before and session.replay is not None:
        session.replay.settled = True
    return Entry(session, recorded)


def _placed(session: Session, parent: Session, call: CallId) -> Session:
    session.place = f"{parent.place}{call.inside}/"
    return session


def _start_known(setup: Setup, parent: Session, call: CallId) -> Session:
    """A fresh child run that knows what its counterparts in the family's other runs did outside."""
    session = start_child(setup, parent, call)
    try:
        session.replay = Replay((), 0, family_externals(session, setup.config.home))
    except BaseException:
        registry.remove(session)
        session.close()
        raise
    return session


def enter_sealed_child(setup: Setup, parent: Session, call: CallId) -> Entry:
    """The child run of a call that the record of `parent` answers: it only answers, too.

    Without a session where there never was one: then its calls are the parent's own.
    """
    child = child_runs(setup.config.home, parent.id, [call]).get(call)
    if child is None:
        return Entry(None)
    session = _placed(attach_child(setup, parent, child), parent, call)
    session.over = True
    if session.replay is not None:
        session.replay.settled = True
    return Entry(session)


def result_of(recorded: Recorded, known: Any, codecs: Any) -> Any:
    """The sealed result of a finished run.

    Raises:
        NotResumable: it cannot be given back.
    """
    if recorded.result is None:
        missing = recorded.ended.result.missing if recorded.ended is not None else None
        raise NotResumable(f"its result was not stored: {missing}", where=recorded.run)
    return codecs.decode(recorded.result, known)


def arguments_of(
    recorded: Recorded, known: Any, codecs: Any, override: dict[str, Any]
) -> dict[str, Any]:
    """The arguments a run was called with, `override` on top.

    Raises:
        NotResumable: they could not be stored, and are not all given.
    """
    if recorded.arguments is None:
        if not override:
            raise NotResumable(
                f"its arguments could not be stored: {recorded.started.arguments.missing}",
                where=recorded.run,
                hint="give them: agent.resume(run, name=value)",
            )
        return dict(override)
    stored = codecs.decode(recorded.arguments, known)
    if not isinstance(stored, dict):
        raise UsageError("its stored arguments are no mapping", where=recorded.run)
    return stored | override
