"""Reclaiming what nothing refers to, beside running writers.

Mark, condemn what nothing reaches, wait for the writers' answers, mark again, remove.

Why it is safe is argued in ``docs/internals/store.md``; the writer's half is in `references`.
Nothing blocks here: a list that some active writer has not answered stays, and the next `collect`
goes on with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

import msgspec

from crabrt.core import failpoints
from crabrt.core.ids import ObjectId
from crabrt.errors import DamagedObject, StoreBusy, StoreUnavailable
from crabrt.store import condemned, layout, locks
from crabrt.store.failures import unavailable
from crabrt.store.index import lock_path, writer_of
from crabrt.store.packs import Item
from crabrt.store.reachable import ObjectRef, mark
from crabrt.store.references import ACTIVE
from crabrt.store.salvage import adopt_orphans
from crabrt.store.store import Store

SPARSE = 0.5
"""A pack with a larger dead share than this is rewritten."""

_LEFTOVER_S = 3600.0
"""A temporary file this old belongs to nobody alive: they exist for milliseconds."""

_marked = failpoints.declare("gc.marked", "nothing is changed; the first mark is done")
_rewritten = failpoints.declare(
    "gc.rewritten", "what lives in sparse packs is durable a second time, in a new pack"
)
_condemned = failpoints.declare(
    "gc.condemned", "a list of dead packs is durable, all packs are there"
)
_removing = failpoints.declare(
    "gc.removing", "a condemned pack is out of the catalog, its file is there"
)
_removed = failpoints.declare("gc.removed", "a condemned pack is gone, its list is there")
_finished = failpoints.declare("gc.finished", "a list and its packs are gone")


class GcReport(msgspec.Struct, frozen=True):
    """What a `collect` did.

    Attributes:
        dry_run: nothing was changed; the figures say what would be.
        packs_removed, bytes_removed: gone now.
        packs_condemned, bytes_condemned: on a list; they go once every writer has answered it.
        packs_rewritten, bytes_rewritten: sparse packs, and what was copied out of them.
        packs_kept: condemned before, but needed after all.
        live_objects, live_bytes, dead_bytes: by the mark, over sealed packs (bytes as stored).
        missing: ids that are referred to and are not there; at most 100.
        waiting_for: process ids of writers that have yet to answer.
        problem: why sparse packs could not be rewritten, or None.
    """

    dry_run: bool = False
    packs_removed: int = 0
    bytes_removed: int = 0
    packs_condemned: int = 0
    bytes_condemned: int = 0
    packs_rewritten: int = 0
    bytes_rewritten: int = 0
    packs_kept: int = 0
    live_objects: int = 0
    live_bytes: int = 0
    dead_bytes: int = 0
    missing: tuple[ObjectId, ...] = ()
    waiting_for: tuple[int, ...] = ()
    problem: str | None = None


Roots = Callable[[], Iterable[ObjectRef]]


def collect(
    store: Store, roots: Roots, *, dry_run: bool = False, sparse: float = SPARSE
) -> GcReport:
    """Remove what `roots` do not reach.

    Args:
        store: where.
        roots: called for each mark; must yield every reference that any journal, undo point or
            index holds at that moment.
        dry_run: only say what would be done.
        sparse: rewrite packs of which a larger share than this is dead.

    Raises:
        StoreBusy: another process collects.
        DamagedObject: something that refers to others is unreadable, so nothing is safe to remove.
        StoreUnavailable: the store cannot be read or written.
    """
    try:
        guard = locks.try_lock(store.home / layout.GC / "lock")
    except OSError as error:
        raise unavailable(error, store.home / layout.GC, "taking the lock of gc") from error
    if guard is None:
        raise StoreBusy("another gc is running", where=str(store.home), hint="wait for it")
    try:
        return _Collection(store, roots, sparse).run(dry_run=dry_run)
    except OSError as error:
        raise unavailable(error, store.home, "collecting garbage") from error
    finally:
        guard.release(remove=False)


class _Weights(msgspec.Struct):
    """Bytes of one pack, alive and dead. An object counts as alive in one pack only."""

    live: int = 0
    dead: int = 0


class _Plan(msgspec.Struct):
    """What to condemn: dead packs, and sparse ones with what must be copied out of them first."""

    weights: dict[str, _Weights]
    dead: set[str]
    thin: dict[str, list[Item]]
    missing: list[ObjectId]


class _Collection:
    """One run of gc."""

    def __init__(self, store: Store, roots: Roots, sparse: float) -> None:
        self.store = store
        self.home = store.home
        self.roots = roots
        self.sparse = sparse
        self.removed = 0
        self.bytes_removed = 0
        self.kept = 0
        self._active: dict[str, bool] = {}

    def run(self, *, dry_run: bool) -> GcReport:
        if dry_run:
            self.store.index.refresh()
        else:
            adopt_orphans(self.store.index)
            condemned.sweep(self.home, time.time() - _LEFTOVER_S)
        answered = [n for n in condemned.lists(self.home) if not self._waiting_for(n)]
        live = self._mark()
        if not dry_run:
            for number in answered:
                self._finish(number, live)
        plan = self._weigh(live)
        _marked()
        problem = None
        if not dry_run:
            try:
                self._rewrite(plan.thin)
            except StoreUnavailable as error:
                problem = str(error)
                plan.thin.clear()
            self._condemn(plan.dead | plan.thin.keys())
        listed = plan.dead | plan.thin.keys() if dry_run else self._listed()
        return GcReport(
            dry_run=dry_run,
            packs_removed=self.removed,
            bytes_removed=self.bytes_removed,
            packs_condemned=len(listed),
            bytes_condemned=self._sizes(listed),
            packs_rewritten=len(plan.thin),
            bytes_rewritten=sum(item.at.length for items in plan.thin.values() for item in items),
            packs_kept=self.kept,
            live_objects=len(live) - len(plan.missing),
            live_bytes=sum(w.live for w in plan.weights.values()),
            dead_bytes=sum(w.dead for w in plan.weights.values()),
            missing=tuple(plan.missing[:100]),
            waiting_for=self._waiting(),
            problem=problem,
        )

    def _waiting(self) -> tuple[int, ...]:
        numbers = condemned.lists(self.home)
        return tuple(sorted({pid for number in numbers for pid in self._waiting_for(number)}))

    def _mark(self) -> set[ObjectId]:
        try:
            return mark(self.store, self.roots())
        except DamagedObject as error:
            raise DamagedObject(
                f"gc cannot tell what is needed: {error.message}",
                where=error.where,
                hint="run `crab check`; remove the damaged run with `crab rm`, or `crab repair`",
            ) from error

    def _weigh(self, live: set[ObjectId]) -> _Plan:
        """What lives in each sealed pack that is on no list; and what is nowhere.

        The packs' own indexes decide. The catalog is a cache, and nothing is removed on its word.
        """
        listed = self._listed()
        plan = _Plan({}, set(), {}, [])
        unplaced = set(live)
        for name in sorted(layout.list_packs(self.home)):
            if name in listed or self._in_progress(writer_of(name)):
                continue
            footer = self.store.index.footer_of(name)
            if footer is None:
                continue
            weights = plan.weights[name] = _Weights()
            items: list[Item] = []
            for item in footer.items(name):
                if item.id in unplaced:
                    unplaced.discard(item.id)
                    items.append(item)
                    weights.live += item.at.length
                else:
                    weights.dead += item.at.length
            if not items:
                plan.dead.add(name)
            elif weights.dead > self.sparse * (weights.live + weights.dead):
                plan.thin[name] = items
        self.store.index.refresh()
        plan.missing = [object_id for object_id in unplaced if not self.store.locate(object_id)]
        return plan

    def _in_progress(self, writer: str) -> bool:
        """Whether what this writer wrote lately may be without a witness in any journal."""
        if writer not in self._active:
            content = locks.content_of(lock_path(self.home, writer))
            self._active[writer] = content is not None and content.startswith(ACTIVE)
        return self._active[writer]

    def _rewrite(self, thin: dict[str, list[Item]]) -> None:
        """Copy what lives in sparse packs into new ones."""
        if not thin:
            return
        with self.store.writer() as writer, writer.commit():
            for items in thin.values():
                for item in items:
                    writer.copy(item.id, item.at)
        _rewritten()

    def _condemn(self, names: set[str]) -> None:
        """Publish a new list, and finish it at once where nobody has to be waited for."""
        if not names:
            return
        number = time.time_ns()
        condemned.write_list(self.home, number, frozenset(names))
        _condemned()
        if not self._waiting_for(number):
            self._finish(number, self._mark())

    def _waiting_for(self, number: int) -> list[int]:
        """The processes whose writers are active and have not answered a list."""
        waiting: list[int] = []
        directory = self.home / layout.WRITERS
        for entry in os.listdir(directory):
            writer = entry.removesuffix(".lock")
            if len(writer) != layout.WRITER_CHARS or writer == entry:
                continue
            content = locks.content_of(directory / entry)
            if content is None or not content.startswith(ACTIVE):
                continue
            if condemned.read_answer(self.home, number, writer) is None:
                digits = content[1:].strip()
                waiting.append(int(digits) if digits.isdigit() else 0)
        return waiting

    def _finish(self, number: int, live: set[ObjectId]) -> None:
        """Remove the packs of a list that every writer answered before `live` was marked."""
        names = condemned.read_list(self.home, number)
        kept = (self._claimed(number) | self._only_homes(live)) & names
        for name in sorted(names - kept):
            self._remove(name)
        self.kept += len(kept)
        condemned.remove_list(self.home, number)
        _finished()

    def _claimed(self, number: int) -> frozenset[str]:
        prefix = f"{number}.seen-"
        answers = [n for n in os.listdir(self.home / layout.GC) if n.startswith(prefix)]
        claims = [condemned.read_answer(self.home, number, n[len(prefix) :]) for n in answers]
        return frozenset().union(*(claim for claim in claims if claim is not None))

    def _only_homes(self, live: set[ObjectId]) -> set[str]:
        """The listed packs that must stay: something alive in them is durable nowhere else."""
        listed = self._listed()
        homes: dict[ObjectId, list[str]] = {}
        kept: set[str] = set()
        for name in listed:
            footer = self.store.index.footer_of(name)
            if footer is None:
                kept.add(name)  # it does not say what it holds
                continue
            for item in footer.items(name):
                if item.id in live:
                    homes.setdefault(item.id, []).append(name)
        if homes:
            for name in layout.list_packs(self.home):
                if name not in listed:
                    for item in self.store.index.durable_items(name):
                        homes.pop(item.id, None)
        return kept.union(*homes.values())

    def _remove(self, name: str) -> None:
        path = layout.pack_path(self.home, name)
        self.store.index.catalog.forget([name])
        _removing()
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            os.unlink(path)
            self.removed += 1
            self.bytes_removed += size
        self.store.index.drop_file(name)
        _removed()

    def _listed(self) -> frozenset[str]:
        numbers = condemned.lists(self.home)
        return frozenset().union(*(condemned.read_list(self.home, n) for n in numbers))

    def _sizes(self, names: Iterable[str]) -> int:
        total = 0
        for name in names:
            with contextlib.suppress(OSError):
                total += layout.pack_path(self.home, name).stat().st_size
        return total
