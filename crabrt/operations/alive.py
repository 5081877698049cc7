"""Processes in a restore: who runs stands still and is imaged, ends, and others come back.

A process cannot be merged as a file can: what runs now is put aside whole (`crab undo` brings it
back) and what ran then takes its place. Only what was a run's is touched.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.config import Config, programs_directory
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.ports import ObjectReader
from crabrt.core.processes import ProcessState, ProcessTree
from crabrt.core.targets import Target
from crabrt.errors import (
    CrabError,
    Damaged,
    DamagedObject,
    NotFound,
    RestoreFailed,
    WouldLoseChanges,
)
from crabrt.inspector.lasting import shown
from crabrt.journal import RunIndex, lease_holder, run_dir
from crabrt.journal.restores import RestoreLog, Revived
from crabrt.operations.targets import State, resolve
from crabrt.process.aftermath import await_dumps
from crabrt.process.beside import faces, whose
from crabrt.process.beside.coming import revive_beside
from crabrt.process.criu import Criu, find
from crabrt.process.criu.guarding import await_others
from crabrt.process.family import Identity
from crabrt.process.halfway import Found, came_back
from crabrt.process.holdings import written_files
from crabrt.process.matching import Grounds
from crabrt.process.obstacles import obstacle
from crabrt.process.parking import Parked, running
from crabrt.process.respawning.returning import respawn
from crabrt.process.revivals import Missing, Revival, not_imaged
from crabrt.process.reviving import revive
from crabrt.process.severing import with_severed
from crabrt.process.sighting import Sighting
from crabrt.process.spool import Spool, spooled
from crabrt.process.state import read_state
from crabrt.process.table import descendants, look
from crabrt.process.unpacking import Images, size_of_images
from crabrt.store import StoreWriter
from crabrt.workspace import Workspace
from crabrt.workspace.restoring import Beside, RestoreReport

NOT_WANTED: Final = 'processes="off" leaves them alone'

FILES_ALONE: Final = "the files can be restored: CRAB_PROCESSES=off leaves processes alone"
_REST_ALONE: Final = "--force restores everything else; CRAB_PROCESSES=off the files alone"
_AGAIN: Final = "again"
_NAMED: Final = 3
_RESTORE: Final = "restore-"
"""How a restore's spool is called, before the number of its process."""
_GUARDED_S: Final = 40.0
"""How long what a killed restore had begun may take to end: CRIU's limit, and some more."""
_DUMPED_S: Final = 95.0
"""The same of an image: what it may take while its caller lives, and what its guard adds."""


def imaging(config: Config) -> Criu | str:
    """Who takes images of processes here, or why nobody does; to find out may take a moment."""
    if config.processes == "track":
        return 'processes="track" asks for no images'
    if config.processes == "off":
        return NOT_WANTED
    found = find(config.criu, programs_directory(), memory=config.home)
    return found if isinstance(found, Criu) else found.reason


@dataclass(frozen=True)
class Company:
    """Those whose processes a restore is about.

    Attributes:
        writer: takes images, and has them.
        workspace: whose files are restored.
        alive: looks who runs that is in its way.
        by: gives who takes images, or why nobody does.
        may_start: whether the user lets what has no image be started again from its command.
        run: whose they are then; several, separated by commas: one of whose, the last if it cannot
            be told; empty: whose they were.
        force: restore the rest where an image cannot be had; else that is refused.
    """

    writer: StoreWriter
    workspace: Workspace
    alive: Callable[[], Sighting]
    by: Callable[[], Criu | str]
    may_start: bool = False
    run: str = ""
    force: bool = False


def quietly(_: str) -> None:
    """For who has nobody to tell that something takes a while."""


def left_running(
    index: RunIndex,
    reader: ObjectReader,
    workspace: Workspace,
    runs: Sequence[str],
    say: Callable[[str], None] = quietly,
) -> Sighting:
    """What dead runs have left alive; if one died while an image was taken, once that is over.

    Args:
        index: knows the runs.
        reader: has their states.
        workspace: where they worked.
        runs: their ids; those that worked elsewhere do not count.
        say: is told if that is waited for.

    Raises:
        CrabError: what they said of it cannot be read.
    """
    states, here = [], []
    for run in runs:
        with contextlib.suppress(NotFound):
            if index.run(run).workspace_id != workspace.id:
                continue  # of a relative that works elsewhere: nobody of it is in the way here
            here.append(run)
            state = resolve(index, Target(run))
            if state.processes and not is_parents(state):
                states.append(read_state(ObjectId(state.processes), reader))
    await_dumps(_left_spools(workspace.home, here), _DUMPED_S, say)
    log = RestoreLog(workspace.state_dir)
    revived = [*log.revived(boot_id()), *_back_unsaid(log, reader, workspace)]

    def is_live(run: str) -> bool:
        return lease_holder(run_dir(workspace.home, RunId(run))) is not None

    return running(states, revived, here, is_live, workspace=workspace.path)


def _back_unsaid(log: RestoreLog, reader: ObjectReader, workspace: Workspace) -> Sequence[Identity]:
    """Who is back by the last restore, if that was killed before it could say so."""
    unfinished = log.unrevived()
    if unfinished is None or unfinished.alive is None or unfinished.begin.boot != boot_id():
        return ()
    await_killed(workspace.home)
    wanted = read_state(unfinished.alive, reader)
    return came_back(wanted, workspace.path, unfinished.begin.wall_ns)


def await_killed(home: Path) -> None:
    """Wait until killed restores have left nothing half done: CRIU may be at work; not for ever."""
    for spool in _of_killed(home):
        for directory in spool.directories():
            await_others(directory, _GUARDED_S)


def _left_spools(home: Path, runs: Sequence[str]) -> list[Path]:
    """Where images lay that `runs`, and killed restores, may have begun."""
    mine = [Spool(home, name) for name in spooled(home).intersection(runs)]
    return [path for spool in (*mine, *_of_killed(home)) for path in spool.directories()]


def _of_killed(home: Path) -> list[Spool]:
    """The spools of restores whose process is no more."""
    pids = {name: name.removeprefix(_RESTORE) for name in spooled(home)}
    return [
        Spool(home, name)
        for name, pid in pids.items()
        if pid != name and pid.isdecimal() and look(int(pid)) is None
    ]


def is_parents(state: State) -> bool:
    """Whether a fork's state is one of the run it was forked from, whose processes those are."""
    forked_seq = state.run.view.lineage.seq
    return forked_seq is not None and state.position <= forked_seq


def together(
    company: Company,
    target: bytes,
    files: Callable[[Beside | None], RestoreReport],
    *,
    dry_run: bool = False,
) -> tuple[RestoreReport, Revival]:
    """Restore files, and processes with them.

    Args:
        company: whose.
        target: the root of what is to be alive; empty: nothing is.
        files: restores the files, and logs what it is given with that.
        dry_run: touch nothing; say what would end, and what would come back.

    Raises:
        DamagedObject: an image is damaged or missing, and not ``company.force``.
        CrabError: as `files`. Who ran goes on, unless the restore had begun.
    """
    try:
        wanted = read_state(ObjectId(target), company.writer) if target else ProcessState()
        alive = company.alive()
    except DamagedObject as error:
        if company.by() == NOT_WANTED:
            return files(None), Revival()
        raise DamagedObject(error.message, where=error.where, hint=FILES_ALONE) from error
    if not alive.state.trees and not wanted.trees:
        return files(None), Revival()
    by = company.by()
    if by == NOT_WANTED:
        return files(None), Revival()
    root = ObjectId(target) if target else None
    if dry_run:
        report = files(_beside(company, alive, None, root, lambda _: None))
        return report, _planned(company, wanted, alive, by)
    settled = replace(company, by=lambda: by)
    with scratch(settled, alive, root, wanted) as directory:
        if root is None:
            return _in_place(settled, None, alive, files, directory)
        goal = _Goal(root, wanted, Images(root, company.writer, directory))
        if isinstance(by, Criu):
            _refuse_lacking(settled, goal)
        return _in_place(settled, goal, company.alive(), files, directory)


def left_out(state: State, reader: ObjectReader) -> tuple[str, ...]:
    """What people have to know of the processes of a state whose files alone are copied.

    Nothing, if nobody was alive then, or that cannot be read any more.
    """
    with contextlib.suppress(CrabError):
        if state.processes and (trees := read_state(ObjectId(state.processes), reader).trees):
            who = _named(trees)
            text = f"these were alive then, and do not come with a copy: {who}"
            return (f"{text} (crab fork makes a run that has them)",)
    return ()


def _named(trees: Iterable[ProcessTree]) -> str:
    """Who is at the top of them, for people: the first few."""
    tops = [shown(one) for tree in trees for one in faces.faces(tree)]
    more = f" and {len(tops) - _NAMED} more" if len(tops) > _NAMED else ""
    return ", ".join(tops[:_NAMED]) + more


@dataclass(frozen=True)
class _Goal:
    """What is to be alive: a state, its root in the store, and its images out of it."""

    root: ObjectId
    state: ProcessState
    images: Images


def _refuse_lacking(company: Company, goal: _Goal) -> None:
    """Read all images of `goal`, before anything is touched.

    Raises:
        DamagedObject, RestoreFailed: one of them cannot be had, and not ``company.force``.
    """
    lacking = goal.images.lacking(goal.state.trees)
    if not lacking or company.force:
        return
    (tree, error), *others = lacking
    more = f" (nor can {len(others)} more)" if others else ""
    text = f"the image of {shown(tree.top)} cannot be used{more}, so nothing was changed: "
    is_lost = isinstance(error, Damaged | NotFound)
    kind = DamagedObject if is_lost else RestoreFailed
    raise kind(text + error.message, where=error.where, hint=_REST_ALONE) from error


def come_back(company: Company, wanted: ProcessState, images: Images, files: ObjectId) -> Revival:
    """Bring back what is in the state `wanted`, where its files are as they were.

    Args:
        company: whose.
        wanted: who.
        images: of them.
        files: the root of the files that were restored.
    """
    here = company.workspace.path
    by, is_elsewhere = company.by(), wanted.workspace not in {b"", here}
    grounds = Grounds(company.writer, files, company.workspace, wanted.workspace)
    imaged = [tree for tree in wanted.trees if tree.imaged and isinstance(by, Criu)]
    matched = {tree.top.identity: grounds.match(tree) for tree in imaged}
    unlike = {who: found.why_not for who, found in matched.items() if found.why_not}
    trees = tuple(tree for tree in wanted.trees if tree.top.identity not in unlike)
    alike = msgspec.structs.replace(wanted, trees=trees)
    if is_elsewhere:  # a fork's: the original's may go on
        revival = revive_beside(alike, images, by, workspace=here)
    else:
        revival = revive(alike, images, by)
    revival = with_severed(alike, images.of, revival)
    others = [
        Missing(tree.top, unlike[tree.top.identity])
        for tree in wanted.trees
        if tree.top.identity in unlike
    ]
    notes = [note for top in revival.revived for note in matched[top.identity].notes]
    if not is_elsewhere:  # else that is told already
        notes += faces.told(wanted.trees, revival.numbers)
    revival = replace(revival, missing=(*revival.missing, *others), notes=(*revival.notes, *notes))
    may_start = company.may_start and not is_elsewhere
    return respawn(wanted, revival, company.run) if may_start else revival


def _planned(company: Company, wanted: ProcessState, alive: Sighting, by: Criu | str) -> Revival:
    """What a restore would do with processes, as things stand; an image may fail all the same."""
    missing, back, ending = [], [], _everybody(alive)
    is_elsewhere = wanted.workspace not in {b"", company.workspace.path}
    for tree in wanted.trees:
        why = by if isinstance(by, str) and tree.imaged else not_imaged(tree)
        startable = () if is_elsewhere else tree.startable
        if (
            not why and not is_elsewhere
        ):  # a fork's have numbers and, if need be, ports of their own
            why = obstacle(tree, ending)
        if why:
            missing.append(Missing(tree.top, why, startable))
        else:
            back.append(tree.top)
    tops = tuple(tree.top for tree in alive.state.trees)
    may_start = company.may_start
    planned = Revival(tops, revived=tuple(back), missing=tuple(missing), may_start=may_start)
    return faces.named(planned, (alive.state, wanted))


def _in_place(
    company: Company,
    goal: _Goal | None,
    alive: Sighting,
    files: Callable[[Beside | None], RestoreReport],
    directory: Path,
) -> tuple[RestoreReport, Revival]:
    begun: list[str] = []
    target = None if goal is None else goal.root
    with Parked(alive, company.writer, company.by(), directory, company.workspace.path) as parked:

        def has_begun(restore_id: str) -> None:
            begun.append(restore_id)
            parked.end()

        try:
            report = files(_beside(company, alive, parked.root, target, has_begun))
        except BaseException as error:
            if isinstance(error, WouldLoseChanges) and alive.state.trees:
                error.message += (
                    f"; that may have been a process of the run: {_named(alive.state.trees)}"
                )
            revival = settle(company, directory) if begun else None
            if isinstance(error, CrabError) and revival is not None and revival.missing:
                lost = "; ".join(f"{shown(one.top)}: {one.why}" for one in revival.missing)
                error.message += f"; and these ended and are not back: {lost}"
            raise
    revival = Revival()
    if goal is not None:
        revival = come_back(company, goal.state, goal.images, report.target)
    ended = tuple(tree.top for tree in alive.state.trees)
    may_start = company.may_start
    revival = replace(revival, ended=ended, lost=parked.lost, may_start=may_start)
    revival = faces.named(revival, (alive.state, *(() if goal is None else (goal.state,))))
    _log(company, begun[-1], revival)
    return report, revival


@contextlib.contextmanager
def scratch(
    company: Company, alive: Sighting, root: ObjectId | None, wanted: ProcessState
) -> Iterator[Path]:
    """A directory for the images of a restore; what killed ones left behind is dropped.

    Args:
        company: whose.
        alive: who is to be imaged.
        root: of the state whose images are unpacked; None: none are.
        wanted: that state.
    """
    home = company.workspace.home
    for killed in _of_killed(home):
        killed.clear()
    spool = Spool(home, f"{_RESTORE}{os.getpid()}")
    unpacked = size_of_images(root, wanted.trees, company.writer) if root is not None else 0
    try:
        yield spool.make("images", alive.state.trees, unpacked)
    finally:
        spool.clear()


def _beside(
    company: Company,
    alive: Sighting,
    before: ObjectId | None,
    target: ObjectId | None,
    begun: Callable[[str], None],
) -> Beside:
    everybody = _everybody(alive)
    theirs = written_by(everybody, company.workspace.path)
    tops = tuple(tree.top.identity for tree in alive.state.trees)
    return Beside(before, target, begun, everybody, theirs, tops)


def written_by(pids: Iterable[int], workspace: bytes) -> frozenset[bytes]:
    """The files of a workspace that processes have open for writing, relative to it.

    Args:
        pids: of the processes; a fork's may know the workspace by another path.
        workspace: an absolute path, as this process has it.
    """
    below = workspace.rstrip(b"/") + b"/"
    written = (
        whose.seen_from_here(pid, path, workspace) for pid in pids for path in written_files(pid)
    )
    return frozenset(path[len(below) :] for path in written if path.startswith(below))


def _everybody(alive: Sighting) -> frozenset[int]:
    """The numbers of all that will end: who was seen, and who began below them since."""
    found = {one.pid for one in alive.processes}
    for pid in tuple(found):
        with contextlib.suppress(OSError):  # its own are not told: nobody is taken for its child
            found |= {one.pid for one in descendants(pid)}
    return frozenset(found)


def _log(company: Company, restore_id: str, revival: Revival) -> None:
    missing = tuple(f"{shown(one.top)}: {one.why}" for one in revival.missing)
    RestoreLog(company.workspace.state_dir).append(
        Revived(restore_id, boot_id(), revival.processes, missing, time.time_ns())
    )


def settle(company: Company, directory: Path, back: Found | None = None) -> Revival | None:
    """Bring back who is missing since the last restore; None if that is not over, or nobody is.

    Args:
        company: whose.
        directory: for images.
        back: who is there already.
    """
    unfinished = RestoreLog(company.workspace.state_dir).unrevived()
    if unfinished is None:
        return None
    revival, there = Revival(), back or Found()
    if unfinished.alive is not None:
        wanted = read_state(unfinished.alive, company.writer)
        rest = tuple(tree for tree in wanted.trees if tree not in there.whole)
        images = Images(unfinished.alive, company.writer, directory / _AGAIN)
        some = msgspec.structs.replace(wanted, trees=rest)
        revival = come_back(company, some, images, unfinished.files)
        revival = replace(
            revival,
            revived=(*(tree.top for tree in there.whole), *revival.revived),
            processes=(*there.processes, *revival.processes),
        )
    _log(company, unfinished.begin.id, revival)
    return revival
