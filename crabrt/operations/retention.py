"""Which turns and runs may go: a policy, the plan it makes of what there is, and carrying that out.

Thinning a turn gives up its files; its conversation, verdict and place in the log stay, so that
everything that could be resumed still can. Never thinned: turn 0, the last restorable turn,
labelled and pinned turns, and (but for the size cap) any turn of a live run. Whole runs go only
when asked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crabrt.core.ids import RunId
from crabrt.errors import NotFound, RunBusy, StoreUnavailable
from crabrt.journal import RunIndex, RunRow, TurnRow, run_dir, thin_turns
from crabrt.operations import naming
from crabrt.operations.roots import collect_garbage
from crabrt.store import Store
from crabrt.store.gc import GcReport

CAP_KEEPS_TURNS = 50
"""Of a live run that is alone over the cap, so many of the latest turns keep their files."""


@dataclass(frozen=True)
class Policy:
    """What to keep. A limit that is None does not limit; no limit at all thins nothing.

    Attributes:
        keep_last: the newest so many runs are left as they are.
        keep_per_run: in every run the newest so many turns keep their files.
        keep_labelled: labelled turns keep theirs (pinned ones always do).
        older_than_s: only turns (and, with `drop_runs`, runs) older than this may go.
        max_bytes: thin the oldest runs first, until the store is estimated to be this small.
        drop_runs: delete whole ended runs that nothing above keeps.
    """

    keep_last: int | None = None
    keep_per_run: int | None = None
    keep_labelled: bool = True
    older_than_s: float | None = None
    max_bytes: int | None = None
    drop_runs: bool = False

    @property
    def limits(self) -> bool:
        """Whether anything at all was said about what may go."""
        given = (self.keep_last, self.keep_per_run, self.older_than_s, self.max_bytes)
        return any(limit is not None for limit in given)


@dataclass(frozen=True)
class RunPlan:
    """What happens to one run: `drop` it, or give up the files of `turns`.

    `bytes_estimate` is what was stored for those turns: less may come free, as turns share.
    """

    run: str
    name: str
    turns: tuple[int, ...]
    drop: bool
    bytes_estimate: int


@dataclass(frozen=True)
class Plan:
    """What a policy makes of a store: runs that change, oldest first; live runs, left alone."""

    runs: tuple[RunPlan, ...]
    live: tuple[str, ...]

    @property
    def turns(self) -> int:
        """How many turns lose their files."""
        return sum(len(plan.turns) for plan in self.runs)

    @property
    def bytes_estimate(self) -> int:
        """What was stored for them."""
        return sum(plan.bytes_estimate for plan in self.runs)


@dataclass(frozen=True)
class Pruned:
    """What was done: the plan, and what the collection after it gave back."""

    plan: Plan
    collected: GcReport | None


def make_plan(
    index: RunIndex, policy: Policy, *, store_bytes: int, now_ns: int | None = None
) -> Plan:
    """What `policy` would do. Reads only.

    Args:
        index: refreshed.
        policy: what to keep.
        store_bytes: what the store takes now; for `Policy.max_bytes`.
        now_ns: instead of the wall clock.
    """
    now = time.time_ns() if now_ns is None else now_ns
    runs = sorted(index.runs(), key=lambda run: (run.updated_ns, run.run))
    live = tuple(run.run for run in runs if naming.is_live(index.home, run.run))
    spared = {run.run for run in runs[max(0, len(runs) - (policy.keep_last or 0)) :]}
    surplus = None if policy.max_bytes is None else store_bytes - policy.max_bytes
    planned: list[RunPlan] = []
    for run in runs:
        if not policy.limits or run.run in live or run.run in spared or run.problem is not None:
            continue
        if surplus is not None and surplus <= 0:
            break
        plan = _plan_run(index, run, policy, now)
        if plan is not None:
            planned.append(plan)
            surplus = None if surplus is None else surplus - plan.bytes_estimate
    return Plan(tuple(planned), live)


def apply_plan(store: Store, plan: Plan, *, reason: str, collect: bool = True) -> Pruned:
    """Carry out `plan`: thin, delete, then collect what that set free.

    A run that came to life since the plan was made is left alone if it was to be deleted; thinning
    it is harmless, as its last states are kept.

    Raises:
        StoreUnavailable: it cannot be written; what was thinned so far stays thinned.
        DamagedJournal: what must be kept cannot be told; nothing was collected.
    """
    for run_plan in plan.runs:
        if run_plan.drop:
            with contextlib.suppress(RunBusy, NotFound):
                naming.remove_run(store.home, run_plan.run)
        else:
            directory = run_dir(store.home, RunId(run_plan.run))
            thin_turns(directory, run_plan.turns, reason=reason)
    collected = collect_garbage(store) if collect and plan.runs else None
    return Pruned(plan, collected)


def enforce_cap(store: Store, cap_bytes: int) -> Pruned | None:
    """Bring the store under its cap if it is over: the oldest ended runs' inner turns go first.

    If that is not enough, the oldest unlabelled turns of live runs follow, all but turn 0 and the
    last `CAP_KEEPS_TURNS`. Never blocks a run: it reads journals, leaves messages, and collects
    beside it. What is condemned already, and only waits for live writers, counts as gone.

    Args:
        store: opened.
        cap_bytes: the cap.

    Returns:
        None where the store is under the cap; else what was done (it may still be over).

    Raises:
        StoreBusy: another collection is running.
        StoreUnavailable, DamagedJournal: as `apply_plan`.
    """
    if pack_bytes(store.home) <= cap_bytes:
        return None
    collected = collect_garbage(store)
    size = pack_bytes(store.home) - collected.bytes_condemned
    if size <= cap_bytes:
        return Pruned(Plan((), ()), collected)
    with RunIndex.open(store.home) as index:
        index.refresh()
        plan = _cap_plan(index, size, cap_bytes * 9 // 10)  # or the next turn would be over again
    return apply_plan(store, plan, reason="the store reached its size cap")


def pack_bytes(home: Path) -> int:
    """The size of all packs: a listing and a stat for each, nothing is read.

    Raises:
        StoreUnavailable: they cannot be listed.
    """
    total = 0
    try:
        with os.scandir(home / "packs") as shelves:
            for shelf in shelves:
                if shelf.is_dir(follow_symlinks=False):
                    total += _shelf_bytes(shelf.path)
    except FileNotFoundError:
        return total
    except OSError as error:
        raise StoreUnavailable(
            f"the packs cannot be listed: {error.strerror}", where=str(home / "packs")
        ) from error
    return total


def _shelf_bytes(path: str) -> int:
    total = 0
    with os.scandir(path) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                total += file.stat(follow_symlinks=False).st_size
    return total


def _cap_plan(index: RunIndex, size: int, goal: int) -> Plan:
    plan = make_plan(index, Policy(max_bytes=goal), store_bytes=size)
    surplus = size - goal - plan.bytes_estimate
    live_plans = []
    for run_id in plan.live:
        if surplus <= 0:
            break
        live_plan = _plan_live(index, index.run(run_id), surplus)
        if live_plan is not None:
            live_plans.append(live_plan)
            surplus -= live_plan.bytes_estimate
    return Plan((*plan.runs, *live_plans), plan.live)


def _plan_run(index: RunIndex, run: RunRow, policy: Policy, now_ns: int) -> RunPlan | None:
    old_ns = None if policy.older_than_s is None else now_ns - int(policy.older_than_s * 1e9)
    turns = index.turns(run.run)
    if policy.drop_runs and (old_ns is None or run.updated_ns < old_ns):
        marked = any(turn.pinned or (turn.labels and policy.keep_labelled) for turn in turns)
        if not marked:
            stored = sum(turn.bytes_stored for turn in turns)
            return RunPlan(run.run, run.name, (), drop=True, bytes_estimate=stored)
    going = [turn for turn in _inner_turns(turns, policy.keep_per_run) if _may_go(turn, policy)]
    if old_ns is not None:
        going = [turn for turn in going if turn.started_ns < old_ns]
    return _thinning(run, turns, going)


def _plan_live(index: RunIndex, run: RunRow, surplus: int) -> RunPlan | None:
    going: list[TurnRow] = []
    turns = index.turns(run.run)
    for turn in _inner_turns(turns, CAP_KEEPS_TURNS):
        if surplus <= 0:
            break
        if _may_go(turn, Policy()):
            going.append(turn)
            surplus -= turn.bytes_stored
    return _thinning(run, turns, going)


def _thinning(
    run: RunRow, turns: Sequence[TurnRow], candidates: Sequence[TurnRow]
) -> RunPlan | None:
    """The plan for `candidates`, without those whose state a turn that stays has too."""
    numbers = {turn.turn for turn in candidates}
    staying = {turn.root for turn in turns if turn.restorable and turn.turn not in numbers}
    going = [turn for turn in candidates if turn.root not in staying]
    if not going:
        return None
    return RunPlan(
        run.run,
        run.name,
        tuple(turn.turn for turn in going),
        drop=False,
        bytes_estimate=sum(turn.bytes_stored for turn in going),
    )


def _inner_turns(turns: Sequence[TurnRow], keep_newest: int | None) -> list[TurnRow]:
    """The turns whose files may be missed: not turn 0, the newest, or the last restorable."""
    last = max((turn.turn for turn in turns if turn.restorable), default=None)
    newest = turns[-1].turn if turns else 0
    oldest_kept = newest - (keep_newest or 0)
    return [
        turn
        for turn in turns
        if turn.restorable and turn.turn not in (0, last) and turn.turn <= oldest_kept
    ]


def _may_go(turn: TurnRow, policy: Policy) -> bool:
    return not turn.pinned and not (turn.labels and policy.keep_labelled)
