"""The processes of a run that is taken up again, or goes back: who stays, ends, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.entries import Captured, Intent, Noted, Result
from crabrt.core.ids import ObjectId
from crabrt.core.processes import LastingProcess, ProcessState
from crabrt.inspector.lasting import shown
from crabrt.journal import Record, RunIndex
from crabrt.operations.alive import Company, imaging, left_running, together
from crabrt.process import orphans
from crabrt.process.family import Identity, Intervals, began_in, is_kin
from crabrt.process.revivals import Missing, Revival, not_imaged
from crabrt.process.sighting import Sighting
from crabrt.process.state import read_state
from crabrt.process.table import Process, look
from crabrt.runtime.session import Session
from crabrt.workspace import RestoreReport
from crabrt.workspace.restoring import Beside

_GOES_ON = (1 << 63) - 1

_HOW = '; respawn="always" (CRAB_RESPAWN) lets its recorded command be run again'
OTHER_PLACE = "it worked in the directory that the run was forked from; start it again in this one"


def left_by(session: Session, runs: Iterable[str]) -> Sighting:
    """What the dead `runs` left alive."""
    engine = session.engine
    with RunIndex.open(engine.config.home) as index:
        index.refresh()
        return left_running(index, engine.writer, engine.workspace, list(runs))


def put_back(
    session: Session,
    processes: bytes,
    files: Callable[[Beside | None], RestoreReport],
    alive: Callable[[], Sighting],
    *,
    elsewhere: bool = False,
) -> tuple[RestoreReport, Revival]:
    """Restore files, and what was alive with them; on the engine's thread.

    Args:
        session: the run; it looks after what comes back.
        processes: the root of what was alive; empty: nothing.
        files: restores them.
        alive: says who runs that is in the way.
        elsewhere: the files go into another directory than the one where that was alive.

    Raises:
        CrabError: as `files`.
    """
    engine = session.engine
    if engine.config.processes == "off":  # what a dead loop left may not write to the files
        left = alive().processes
        orphans.stop(one.identity for one in left)
        return files(None), Revival(ended=left)
    by = partial(imaging, engine.config)
    may_start = engine.config.respawn == "always"
    company = Company(engine.writer, engine.workspace, alive, by, may_start, session.id, force=True)
    state = wanted(session, processes)
    if elsewhere and not state.workspace:  # nobody can tell what their paths are
        report, revival = together(company, b"", files)
        missing = [Missing(one.top, OTHER_PLACE) for one in state.trees]
        return report, Revival(revival.ended, revival.lost, missing=tuple(missing))
    report, revival = together(company, processes, files)
    if revival.shells:
        state = msgspec.structs.replace(state, shells=revival.shells)
    take(session, revival.processes, state, dict(revival.numbers))
    return report, revival


def take(
    session: Session,
    processes: Iterable[Identity],
    state: ProcessState,
    numbers: Mapping[int, int],
) -> None:
    """The run looks after these from now on; they are what its turn begins with.

    Args:
        session: the run.
        processes: they.
        state: in which they were recorded: it says which shells of the loop's are among them.
        numbers: of processes that have others now.
    """
    custody = session.engine.custody
    custody.adopt(processes)
    custody.shells.recorded(state.shells, numbers)
    session.alive = custody.look(()) or session.alive


def wanted(session: Session, processes: bytes) -> ProcessState:
    """What was alive in a state.

    Raises:
        DamagedObject: it cannot be read.
    """
    if not processes or session.engine.config.processes == "off":
        return ProcessState()
    return read_state(ObjectId(processes), session.engine.writer)


def all_there(
    state: ProcessState,
    alive: Sighting,
    records: Iterable[Record],
    position: int,
    *,
    may_start: bool,
) -> bool:
    """Whether nobody has to come back: who could of `state` lives, and what was left since.

    Args:
        state: what was alive at the last checkpoint.
        alive: what is.
        records: the run's journal.
        position: up to which entry the checkpoint knows it.
        may_start: whether who has no image could.
    """
    here = {one.identity for one in alive.processes}
    could = [one for tree in state.trees if tree.imaged for one in tree.processes]
    if may_start:
        could += [one for tree in state.trees for one in tree.startable]
    if could and state.boot != boot_id():
        return False
    found = [process for one in alive.processes if (process := look(one.pid)) is not None]
    return all(one.identity in here for one in could) and all(
        sum(began_in(process, (span,)) for process in found) >= left
        for span, left in _left_behind(records, position)
    )


def _left_behind(records: Iterable[Record], position: int) -> list[tuple[tuple[int, int], int]]:
    """When the tools behind `position` ran that left processes, and how many each did."""
    began: dict[str, int] = {}
    found = []
    for record in records:
        body, at = record.body, record.entry
        if isinstance(body, Intent):
            began[str(body.call)] = at.mono_ns
        elif isinstance(body, Result) and body.left and at.seq > position:
            found.append(((began.get(str(body.call), 0), at.mono_ns), body.left))
    return found


def keep(session: Session, state: ProcessState, alive: Sighting, records: Iterable[Record]) -> None:
    """The run goes on in place: what its tools started goes on with it, the rest ends.

    Args:
        session: the run.
        state: what was alive at its last checkpoint.
        alive: what is.
        records: its journal, which says when tools ran.
    """
    known = {one.identity for tree in state.trees for one in tree.processes}
    looked_ns = _GOES_ON

    def noted() -> Iterator[Record]:
        nonlocal looked_ns
        for record in records:
            if isinstance(record.body, Captured) and record.entry.boot == boot_id():
                looked_ns = record.entry.mono_ns
            yield record

    tools = tool_spans(noted())
    here = {one.identity for one in alive.processes}
    found = [one for each in alive.processes if (one := look(each.pid)) is not None]
    found = [one for one in found if one.identity in here]
    kept = _kept(found, known, tools)
    later = {one.identity for one in found if one.began_ns > looked_ns}
    kept = _kept(found, known | _strays(found, kept, later, is_gone=not known <= here), tools)
    others = {one.identity for one in found if one.pid not in kept}
    ended = [one for one in alive.processes if one.identity in others]
    orphans.stop(one.identity for one in ended)
    tell_ended(session, ended)
    ours = [one.identity for one in alive.processes if one.pid in kept]
    take(session, ours, state, {})
    tell(session, Revival(missing=tuple(_ended(state, ours))), doing="the resume")


def _kept(found: Iterable[Process], known: Collection[Identity], tools: Intervals) -> set[int]:
    """The numbers of those that are `known`, began while a tool ran, or descend from such."""
    kept: set[int] = set()
    for one in found:
        if one.identity in known or one.parent in kept or began_in(one, tools):
            kept.add(one.pid)
    return kept


def _strays(
    found: Sequence[Process],
    kept: Collection[int],
    later: Collection[Identity],
    *,
    is_gone: bool,
) -> set[Identity]:
    """Whom a process of the run must have started, and left, since anybody looked.

    Args:
        found: who is alive.
        kept: the numbers of those that are the run's for another reason.
        later: who began since then; who is older was seen, and was none of the run's.
        is_gone: whether somebody of the run has ended since.
    """
    here = {one.pid for one in found}
    run = [one for one in found if one.pid in kept]
    rest = [one for one in found if one.pid not in kept and one.identity not in later]
    lost = [one for one in found if one.identity in later and one.parent not in here]
    told = {one.identity: is_kin(one, run, rest) for one in lost if one.pid not in kept}
    return {who for who, kin in told.items() if kin or (kin is None and is_gone)}


def _ended(state: ProcessState, alive: Collection[Identity]) -> Iterator[Missing]:
    """Who of `state` is not `alive`, and has no image; the loop's shells it makes anew itself."""
    shells = {shell.top for shell in state.shells if shell.state}
    for tree in state.trees:
        why = not_imaged(tree)
        tops = () if tree.top.pid in shells else (tree.top,)
        for one in tree.startable or tops if why else ():
            if one.identity not in alive:
                yield Missing(one, why, (one,) if tree.startable else ())


def tool_spans(records: Iterable[Record]) -> Intervals:
    """When the tools of a run ran, in this boot."""
    boot, spans = boot_id(), []
    running: dict[str, int] = {}
    for record in records:
        body, entry = record.body, record.entry
        if entry.boot != boot:
            running.clear()
        elif isinstance(body, Intent):
            running[str(body.call)] = entry.mono_ns
        elif isinstance(body, Result):
            spans.append((running.pop(str(body.call), entry.mono_ns), entry.mono_ns))
    return (*spans, *((begin, _GOES_ON) for begin in running.values()))


def tell(session: Session, revival: Revival, *, doing: str) -> None:
    """Journal what became of processes, and have the loop warned of what is not back."""
    tell_ended(session, revival.ended)
    for one in revival.revived:
        session.append(Noted("revived", f"{shown(one)} is back"))
    for cut in revival.severed:
        session.append(Noted("severed", f"{shown(cut.top)}: {'; '.join(cut.told)}"))
    for note in revival.notes:
        session.append(Noted("beside", note))
        session.losses.mention(f"{doing}: {note}")
    for done in revival.started:
        text = f"{shown(done.was)} was started again, as process {done.pid}"
        lacks = [f"it does not listen on {address}" for address in done.silent] + [*done.lost]
        session.append(Noted("started-again", "; ".join((text, *lacks))))
        if done.silent:
            session.losses.mention(f"{doing}: {'; '.join((text, *lacks))}")
    may_start = session.engine.config.respawn == "always"
    for tree in revival.missing:
        how = _HOW if tree.startable and not may_start else ""
        text = f"{shown(tree.top)} is not back: {tree.why}{how}"
        session.append(Noted("not-revived", text))
        session.losses.mention(f"{doing}: {text}")
    for tree in revival.lost:
        session.append(Noted("lost", f"{shown(tree.top)} ended without an image: {tree.why}"))


def tell_ended(session: Session, processes: Iterable[LastingProcess]) -> None:
    """Journal that processes were ended."""
    for one in processes:
        session.append(Noted("orphan", f"stopped {shown(one)}"))
