"""Check, repair and measure everything at once: packs, journals, logs, and what ties them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crabrt.core.clock import boot_id
from crabrt.core.ids import ObjectId, ObjectKind, RunId
from crabrt.errors import CrabError, Damaged, DamagedJournal, NotFound, RunBusy, StoreUnavailable
from crabrt.journal import (
    Lease,
    RunIndex,
    cut_journal,
    promised_references,
    read_journal,
    run_dir,
)
from crabrt.journal.inbox import read_inbox
from crabrt.operations import naming
from crabrt.operations.roots import referenced, run_ids, workspace_dirs
from crabrt.store import ObjectRef, Store
from crabrt.store.check import CheckReport, check
from crabrt.store.reachable import references_of
from crabrt.store.repair import RepairReport, repair
from crabrt.store.usage import Usage, usage
from crabrt.workspace.restoring import RestoreLog

Progress = Callable[[int, int], None]
_LISTED_TURNS = 1_000
_LOST = "it is referred to, and not in the store"


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong: of what kind (`area`), where, and what."""

    area: str
    where: str
    text: str


@dataclass(frozen=True)
class Health:
    """What a check found.

    Attributes:
        store: what the store's own check said.
        troubles: everything that is wrong, the store's problems included.
        affected: ``RUN@TURN`` of every turn whose files cannot be brought back whole (at most
            `_LISTED_TURNS` a run), and ``RUN`` where the conversation is hurt.
        runs: how many runs were looked at.
        not_durable: what is missing and was never promised: it was stored, and not durable yet
            when the power was lost. That is no damage.
        lost: ``RUN@TURN`` of the turns that this took, and ``RUN`` where it took calls.
    """

    store: CheckReport
    troubles: tuple[Trouble, ...]
    affected: tuple[str, ...]
    runs: int
    not_durable: tuple[Trouble, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether a repair has anything to work on: what is lost, it cannot bring back."""
        return any(one.text != _LOST for one in self.troubles)


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        store: what was done to packs and catalog.
        cut: runs whose damaged journal was cut behind its last whole entry.
        set_aside: damaged messages that were renamed.
        left: what is still damaged, with what would help.
    """

    store: RepairReport
    cut: tuple[str, ...]
    set_aside: tuple[str, ...]
    left: tuple[Trouble, ...]


@dataclass(frozen=True)
class RunUsage:
    """One run's share: bytes stored when its checkpoints were made, and its journal's size."""

    run: str
    name: str
    turns: int
    stored_bytes: int
    journal_bytes: int


def check_everything(
    store: Store, *, read_data: bool = False, progress: Progress | None = None
) -> Health:
    """Check the store, every journal's chain, every log, and that all they refer to is there.

    Args:
        store: opened.
        read_data: also re-hash every object.
        progress: called with packs done and packs in all, then with runs.

    Raises:
        StoreUnavailable: something cannot be listed.
    """
    packs = check(store, read_data=read_data, progress=progress)
    troubles = [Trouble(p.area, p.where, p.text) for p in packs.problems]
    hurt = {object_id for problem in packs.problems for object_id in problem.objects}
    reach = _Reach(store, hurt)
    affected: list[str] = []
    lost: list[str] = []
    unpromised: dict[RunId, list[ObjectRef]] = {}
    runs = run_ids(store.home)
    with RunIndex.open(store.home) as index:
        index.refresh()
        for done, run in enumerate(runs):
            promised, unpromised[run] = _named(store.home, run, troubles, affected)
            affected += _affected(run, index, reach, promised)
            if progress is not None:
                progress(done + 1, len(runs))
        for state_dir in workspace_dirs(store.home):
            _check_restores(state_dir, reach, troubles)
        troubles += [Trouble("object", i.hex(), text) for i, text in reach.problems.items()]
        reach.problems.clear()  # all that must be there was looked at: what is found now is other
        for run, named in unpromised.items():
            lost += _affected(run, index, reach, named)
    not_durable = [
        Trouble("object", i.hex(), "it was not durable when the power was lost")
        for i in reach.problems
    ]
    return Health(
        packs, tuple(troubles), tuple(affected), len(runs), tuple(not_durable), tuple(lost)
    )


def repair_everything(home: Path, *, cut_journals: bool = False) -> Repaired:
    """Repair packs and catalog, set damaged messages aside, rebuild the list of runs.

    Args:
        home: the store's directory.
        cut_journals: also give up what lies behind damage in a journal, so that the run can go on
            from there. The bytes are kept.

    Raises:
        CrabError: as ``store.repair.repair``.
    """
    packs = repair(home)
    cut: list[str] = []
    set_aside: list[str] = []
    left: list[Trouble] = []
    for run in run_ids(home):
        directory = run_dir(home, run)
        try:
            set_aside += _set_messages_aside(directory)
            problem = _journal_problem(directory)
            if problem is None:
                continue
            if not cut_journals:
                left.append(Trouble("journal", problem.where or run, problem.message))
                continue
            with Lease.acquire(directory) as lease:
                if cut_journal(directory, lease) is not None:
                    cut.append(run)
        except (RunBusy, NotFound, Damaged) as error:
            left.append(Trouble("journal", error.where or run, error.message))
    with RunIndex.open(home) as index:
        index.rebuild()
    naming.sweep_deleted(home)
    return Repaired(packs, tuple(cut), tuple(set_aside), tuple(left))


def measure(store: Store, *, live: bool) -> Usage:
    """Where the store's bytes are; with `live`, how much of them is still referred to.

    Raises:
        CrabError: as ``store.usage.usage``.
    """
    return usage(store, (lambda: referenced(store)) if live else None)


def runs_usage(store: Store, index: RunIndex) -> list[RunUsage]:
    """Every run's share, largest first."""
    found = []
    for run in index.runs():
        turns = index.turns(run.run)
        found.append(
            RunUsage(
                run.run,
                run.name,
                len(turns),
                sum(turn.bytes_stored for turn in turns),
                _tree_bytes(run_dir(store.home, RunId(run.run))),
            )
        )
    return sorted(found, key=lambda one: (-one.stored_bytes - one.journal_bytes, one.run))


def _named(
    home: Path, run: RunId, troubles: list[Trouble], affected: list[str]
) -> tuple[list[ObjectRef], list[ObjectRef]]:
    """What the journal of `run` names: what must be there, and what was never promised to be."""
    promised: dict[ObjectRef, None] = {}
    unpromised: dict[ObjectRef, None] = {}
    try:
        for object_id, kind, must in promised_references(run_dir(home, run), boot=boot_id()):
            (promised if must else unpromised)[ObjectRef(object_id, kind)] = None
    except NotFound:
        return [], []  # it has no entry yet, or was deleted meanwhile
    except StoreUnavailable:
        raise
    except CrabError as error:
        troubles.append(Trouble("journal", error.where or run, error.message))
        affected.append(run)
    return list(promised), [ref for ref in unpromised if ref not in promised]


def _affected(run: RunId, index: RunIndex, reach: _Reach, named: Iterable[ObjectRef]) -> list[str]:
    """The turns of `run` (or the run itself) that what is missing of `named` affects."""
    missing = [ref for ref in named if not reach.whole(ref)]
    roots = {ref.id for ref in missing if ref.kind is ObjectKind.ROOT}
    affected: list[str] = [run] if len(roots) < len(missing) else []
    if roots:
        turns = [turn for turn in index.turns(run) if turn.root in roots]
        affected += [f"{run}@{turn.turn}" for turn in turns[:_LISTED_TURNS]]
    return affected


def _check_restores(state_dir: Path, reach: _Reach, troubles: list[Trouble]) -> None:
    """An interrupted restore must be able to go on; undo points are promised for a time only."""
    log = RestoreLog(state_dir)
    try:
        begun = log.interrupted()
    except Damaged as error:
        troubles.append(Trouble("restores", error.where or str(log.path), error.message))
        return
    if begun is not None and not reach.whole(ObjectRef(begun.target, ObjectKind.ROOT)):
        troubles.append(
            Trouble("restores", str(log.path), "a killed restore cannot be finished as it is")
        )


class _Reach:
    """Which objects are there with all that is below them; each is looked at once.

    Attributes:
        problems: what is missing or unreadable, and why.
    """

    def __init__(self, store: Store, hurt: set[ObjectId]) -> None:
        self._store = store
        self._hurt = hurt
        self._whole: dict[ObjectId, bool] = {}
        self.problems: dict[ObjectId, str] = {}

    def whole(self, top: ObjectRef) -> bool:
        """Whether `top` and everything below it can be read."""
        if top.id not in self._whole:
            self._walk(top)
        return self._whole[top.id]

    def _walk(self, top: ObjectRef) -> None:
        stack = [self._enter(top)]
        while stack:
            level = stack[-1]
            child = next(level.children, None)
            if child is None:
                stack.pop()
                self._whole[level.id] = level.whole
                if stack and not level.whole:
                    stack[-1].whole = False
            elif child.id in self._whole:
                level.whole = level.whole and self._whole[child.id]
            else:
                stack.append(self._enter(child))

    def _enter(self, ref: ObjectRef) -> _Level:
        try:
            if ref.kind is ObjectKind.DATA:
                there = ref.id not in self._hurt and self._store.contains(ref.id)
                if not there and ref.id not in self._hurt:
                    self.problems[ref.id] = _LOST
                return _Level(ref.id, iter(()), there)
            return _Level(ref.id, iter(list(references_of(self._store, ref))), True)
        except Damaged as error:
            lost = not self._store.contains(ref.id)
            where = "" if error.where is None else f"{error.where}: "
            self.problems[ref.id] = _LOST if lost else f"{where}{error.message}"
            return _Level(ref.id, iter(()), False)


@dataclass
class _Level:
    id: ObjectId
    children: Iterator[ObjectRef] = field(repr=False)
    whole: bool


def _journal_problem(directory: Path) -> DamagedJournal | None:
    try:
        for _ in read_journal(directory):
            pass
    except DamagedJournal as error:
        return error
    except NotFound:
        return None
    return None


def _set_messages_aside(directory: Path) -> list[str]:
    """Rename messages that cannot be read; where they are now."""
    moved: list[str] = []
    while True:
        try:
            for _ in read_inbox(directory):
                pass
        except DamagedJournal as error:
            moved.append(_set_aside(str(error.where)))
        else:
            return moved


def _set_aside(path: str) -> str:
    aside = f"{path}.damaged"
    try:
        os.rename(path, aside)
    except OSError as error:
        raise StoreUnavailable(f"cannot be renamed: {error.strerror}", where=path) from error
    return aside


def _tree_bytes(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue  # a message's temporary name
    return total
