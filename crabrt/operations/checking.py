"""Check everything at once: packs, journals, logs, and that what they refer to is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from crabrt.core.clock import boot_id
from crabrt.core.ids import ObjectId, ObjectKind, RunId
from crabrt.errors import CrabError, Damaged, NotFound, StoreUnavailable
from crabrt.journal import RunIndex, promised_references, run_dir
from crabrt.journal.restores import RestoreLog
from crabrt.operations.roots import run_ids, workspace_dirs
from crabrt.store import ObjectRef, Store
from crabrt.store.check import CheckReport, check
from crabrt.store.reachable import references_of

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
        unrevivable: ``RUN@TURN`` of turns whose files can, and whose processes cannot (likewise).
        runs: how many runs were looked at.
        not_durable: what is missing and was never promised: it was stored, and not durable yet
            when the power was lost. That is no damage.
        lost: ``RUN@TURN`` of the turns that this took, and ``RUN`` where it took calls.
    """

    store: CheckReport
    troubles: tuple[Trouble, ...]
    affected: tuple[str, ...]
    runs: int
    unrevivable: tuple[str, ...] = ()
    not_durable: tuple[Trouble, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def repairable(self) -> bool:
        """Whether a repair has anything to work on: what is lost, it cannot bring back."""
        return any(one.text != _LOST for one in self.troubles)


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
    unrevivable: list[str] = []
    lost: list[str] = []
    unpromised: dict[RunId, list[ObjectRef]] = {}
    runs = run_ids(store.home)
    with RunIndex.open(store.home) as index:
        index.refresh()
        for done, run in enumerate(runs):
            promised, unpromised[run] = _named(store.home, run, troubles, affected)
            hurt_turns = _affected(run, index, reach, promised)
            affected += hurt_turns.of_files
            unrevivable += hurt_turns.of_processes
            if progress is not None:
                progress(done + 1, len(runs))
        for state_dir in workspace_dirs(store.home):
            _check_restores(state_dir, reach, troubles)
        troubles += [Trouble("object", i.hex(), text) for i, text in reach.problems.items()]
        reach.problems.clear()  # all that must be there was looked at: what is found now is other
        for run, named in unpromised.items():
            lost += _affected(run, index, reach, named).of_files
    not_durable = [
        Trouble("object", i.hex(), "it was not durable when the power was lost")
        for i in reach.problems
    ]
    return Health(
        packs,
        tuple(troubles),
        tuple(affected),
        len(runs),
        tuple(unrevivable),
        tuple(not_durable),
        tuple(lost),
    )


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


class _Affected(NamedTuple):
    """Turns whose files are hurt (or the run itself), and turns whose processes alone are."""

    of_files: list[str]
    of_processes: list[str]


def _affected(run: RunId, index: RunIndex, reach: _Reach, named: Iterable[ObjectRef]) -> _Affected:
    """The turns of `run` (or the run itself) that what is missing of `named` affects."""
    missing = [ref for ref in named if not reach.whole(ref)]
    roots = {ref.id for ref in missing if ref.kind is ObjectKind.ROOT}
    found = _Affected([run] if len(roots) < len(missing) else [], [])
    if roots:
        turns = index.turns(run)
        files = [turn for turn in turns if turn.root in roots]
        alive = [turn for turn in turns if turn.root not in roots and turn.processes in roots]
        found.of_files.extend(f"{run}@{turn.turn}" for turn in files[:_LISTED_TURNS])
        found.of_processes.extend(f"{run}@{turn.turn}" for turn in alive[:_LISTED_TURNS])
    return found


def _check_restores(state_dir: Path, reach: _Reach, troubles: list[Trouble]) -> None:
    """An interrupted restore must be able to go on; undo points are promised for a time only."""
    log = RestoreLog(state_dir)
    try:
        begun = log.interrupted()
        unrevived = log.unrevived()
    except Damaged as error:
        troubles.append(Trouble("restores", error.where or str(log.path), error.message))
        return
    if begun is not None and not reach.whole(ObjectRef(begun.target, ObjectKind.ROOT)):
        troubles.append(
            Trouble("restores", str(log.path), "a killed restore cannot be finished as it is")
        )
    alive = None if unrevived is None else unrevived[1]
    if alive is not None and not reach.whole(ObjectRef(alive, ObjectKind.ROOT)):
        text = "the processes of a killed restore cannot be brought back"
        troubles.append(Trouble("restores", str(log.path), text))


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
