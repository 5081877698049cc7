"""Restore in place: checkpoint what is there, plan, check for others' work, log, apply, verify.

The order is what makes it safe. The state before is durable and the log says `Begin` before
anything is touched; the log says `End` after all of it is durable. Killed in between, `recover`
makes the same plan from the same two roots and rolls it forward; each step is found done, or is
done.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from crabrt.core.clock import boot_id
from crabrt.core.config import GIB
from crabrt.core.content import piece_ids
from crabrt.core.failpoints import declare
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.core.trees import Kind
from crabrt.errors import (
    CrabError,
    Damaged,
    NotFound,
    PreviewOutdated,
    RestoreFailed,
    StoreUnavailable,
    WouldLoseChanges,
)
from crabrt.journal.restores import Begin, End, RestoreLog, begin
from crabrt.workspace.changes import Change
from crabrt.workspace.diff import diff_roots, read_root
from crabrt.workspace.dirfd import mount_points
from crabrt.workspace.identity import Workspace
from crabrt.workspace.ignore import Covered
from crabrt.workspace.restoring import bystanders, files, finish
from crabrt.workspace.restoring.apply import Apply, Progress, Unwritable
from crabrt.workspace.restoring.foreseen import foreseen
from crabrt.workspace.restoring.ground import Ground
from crabrt.workspace.restoring.handles import Blocked, Handles
from crabrt.workspace.restoring.known import known_after
from crabrt.workspace.restoring.plan import entries_from, entry_or_none, make_plan
from crabrt.workspace.restoring.previews import preview_id
from crabrt.workspace.restoring.report import RestoreReport
from crabrt.workspace.restoring.scope import Scope
from crabrt.workspace.restoring.steps import Plan, without, without_mounts
from crabrt.workspace.tracker import Tracker

UNDO_KEEP_DAYS = 14

_begun = declare(
    "restore.begun", "the checkpoint and the log's begin are durable, nothing is touched"
)
_committed = declare("restore.committed", "all files are in place, directories may still be open")
_ended = declare("restore.ended", "the log's end is durable")


@dataclass(frozen=True)
class Beside:
    """What is restored beside the files, by somebody else: processes.

    Attributes:
        before, target: the roots of what was alive, and of what is to be; None: nothing.
        begun: is told the restore's id when both are logged, and before any file is touched.
        ending: the numbers of processes that it ends.
        theirs: paths that these write to: what changed there is nobody else's work.
        tops: number of each process that ends with what is below it, and when it began, in clock
            ticks since boot.
    """

    before: ObjectId | None
    target: ObjectId | None
    begun: Callable[[str], None]
    ending: frozenset[int] = frozenset()
    theirs: frozenset[bytes] = frozenset()
    tops: tuple[tuple[int, int], ...] = ()


class Session:
    """What the steps of one restore share. The restore lock is held."""

    def __init__(
        self,
        workspace: Workspace,
        writer: ObjectWriter,
        tracker: Tracker | None,
        progress: Progress | None,
    ) -> None:
        self._workspace = workspace
        self._writer = writer
        self._given = tracker
        self._progress = progress
        self._log = RestoreLog(workspace.state_dir)
        self._left_alone = False
        self._unlinked: dict[bytes, str] = {}

    def restore(
        self,
        target: ObjectId,
        base: ObjectId | None,
        scope: Scope,
        *,
        force: bool,
        dry_run: bool,
        label: str,
        beside: Beside | None = None,
        expect: str | None = None,
        known: ObjectId | None = None,
        left: Sequence[ObjectId] = (),
    ) -> RestoreReport:
        """Restore or, in a dry run, say what that would do; most is as in `engine.restore`.

        `known` is as in `Begin`. What is as in one of `left`, states that a restore brought, is
        nobody else's work, whether it is in `base` or not. A dry run takes an interrupted restore
        for finished.
        """
        self._check_present(target)
        tracker = self._tracker()
        killed = self._log.interrupted() if dry_run else None
        before = self._capture(tracker, durable=not dry_run, killed=killed)
        if killed is not None and base is not None:
            base = self._known_after(killed, before)
        with self._handles(may_loosen=not dry_run) as handles:
            plan, blocked = without_mounts(
                self._plan(handles, before, target, scope), handles.mounts
            )
            if not self._can_be_undone(plan):
                fresh = self._fresh_tracker()
                before = self._capture(fresh, durable=not dry_run, killed=killed)
                plan, blocked = without_mounts(
                    self._plan(handles, before, target, scope), handles.mounts
                )
            conflicts = self._conflicts(base, left, before, plan, scope, force=force)
            if beside is not None:
                conflicts = tuple(path for path in conflicts if path not in beside.theirs)
            ending = frozenset[int]() if beside is None else beside.ending
            report = self._describe(handles, plan, before, target, scope, ending=ending)
            report = replace(
                report,
                before=before if plan.changes or beside is not None else None,
                finishes=killed is not None,
                conflicts=conflicts,
                not_restored=tuple({**blocked, **self._unlinked}.items()),
            )
            processes = None if beside is None else [beside.target, sorted(beside.tops)]
            report = replace(report, preview=preview_id(report, base, scope, processes))
            if expect is not None and expect != report.preview:
                raise self._outdated()
            if conflicts and not (force or dry_run):
                raise self._would_lose(conflicts)
            if dry_run or not (plan.changes or beside is not None):
                whole = not report.not_restored and not dry_run
                return replace(report, dry_run=dry_run, verified=whole)
            begun = begin(
                os.urandom(8).hex(),
                before,
                target,
                base=base,
                paths=scope.paths,
                force=force,
                label=label,
                alive_before=None if beside is None else beside.before,
                alive_target=None if beside is None else beside.target,
                known=known,
            )
            self._log.append(begun)
            _begun()
            if beside is not None:
                beside.begun(begun.id)
            apply = self._apply(Ground(handles, self._writer), plan, begun)
            return self._carry_out(handles, apply, plan, begun, report=report, tracker=tracker)

    def recover(self) -> RestoreReport | None:
        """Roll an interrupted restore forward."""
        begun = self._log.interrupted()
        if begun is None:
            return None
        scope = Scope(begun.paths)
        with self._handles(may_loosen=True) as handles:
            plan, blocked = without_mounts(
                self._plan(handles, begun.before, begun.target, scope), handles.mounts
            )
            finish.close_left_open(
                handles, plan, lambda path: entry_or_none(self._writer, begun.before, path)
            )
            report = self._describe(handles, plan, begun.before, begun.target, scope)
            report = replace(
                report, recovered=True, not_restored=tuple({**blocked, **self._unlinked}.items())
            )
            ground = Ground(
                handles, self._writer, recovering=True, rebooted=begun.boot != boot_id()
            )
            apply = self._apply(ground, plan, begun)
            apply.changed = True  # before it was interrupted
            done = self._carry_out(handles, apply, plan, begun, report=report, tracker=None)
            return replace(done, conflicts=tuple(apply.foreign))

    def finish_interrupted(self, *, force: bool) -> RestoreReport | None:
        """Recover before something else is restored; with `force`, give up what cannot be.

        Given up means: the state it left is what is there, and its undo point still leads back.
        """
        try:
            return self.recover()
        except (Damaged, RestoreFailed):
            begun = self._log.interrupted()
            if not force or begun is None:
                raise
            root = self._capture(self._tracker(), durable=True)
            self._log.append(self._end(begun, root))
            return None

    # The parts.

    def _check_present(self, target: ObjectId) -> None:
        if not self._writer.contains(target):
            raise NotFound("the state to restore is not in the store", where=target.hex())
        read_root(self._writer, target)

    def _can_be_undone(self, plan: Plan) -> bool:
        """Whether the store has every byte that the plan takes away.

        It may not: the index vouches for files by their stamps, and the store may have lost since
        what it had of them (a pack that was damaged and set aside). Then they are read again.
        """
        contents = (change.before.content for change in plan.changes if change.before is not None)
        return all(
            self._writer.contains(piece)
            for content in contents
            if content is not None
            for piece in piece_ids(content, self._writer.get)
        )

    def _tracker(self) -> Tracker:
        if self._given is not None:
            return self._given
        tracker = self._fresh_tracker()
        tracker.load(self._writer)
        return tracker

    def _fresh_tracker(self) -> Tracker:
        return Tracker(self._workspace, huge_files=2_000_000, huge_bytes=100 * GIB, force=True)

    def _capture(self, tracker: Tracker, *, durable: bool, killed: Begin | None = None) -> ObjectId:
        """The root of what is there; with `killed`, of what will be once that is finished."""
        root = tracker.capture(tracker.scan(), self._writer).root
        if durable:
            self._writer.sync()
            if tracker is not self._given:
                with suppress(StoreUnavailable):  # a cache: the next scan reads more, that is all
                    tracker.save()
        return root if killed is None else foreseen(self._writer, killed, root)

    def _end(self, begun: Begin, root: ObjectId) -> End:
        """The end of a restore that left `root`; what it names is durable."""
        known = self._known_after(begun, root)
        if known not in {root, begun.known}:
            self._writer.sync()
        return End(
            begun.id,
            root,
            changed=True,
            wall_ns=time.time_ns(),
            known=known if known != root else None,
        )

    def _known_after(self, begun: Begin, root: ObjectId) -> ObjectId:
        """What is known after a restore that left `root`.

        If the state known before is not whole in the store, others' work cannot be told: what is
        there is known from now on.
        """
        try:
            return known_after(self._writer, begun, root)
        except Damaged:
            return root

    @contextmanager
    def _handles(self, *, may_loosen: bool) -> Iterator[Handles]:
        fd = self._workspace.open_root()
        try:
            mounts = mount_points(self._workspace.path)
            with Handles(fd, may_loosen=may_loosen, mounts=mounts) as handles:
                yield handles
        finally:
            os.close(fd)

    def _plan(self, handles: Handles, before: ObjectId, target: ObjectId, scope: Scope) -> Plan:
        plan = make_plan(self._writer, before, target, scope, nlink=_link_counter(handles))
        # The target may be of a time when less was excluded.
        excluded = Covered(self._workspace.excludes)
        left = {c.path for c in plan.changes if _covered(c, excluded)}
        self._left_alone = bool(left)
        self._unlinked = {
            step.path: "a hard link to something excluded"
            for step in plan.steps
            if step.source in left and step.path not in left
        }
        return without(plan, left)

    def _conflicts(
        self,
        base: ObjectId | None,
        left: Sequence[ObjectId],
        before: ObjectId,
        plan: Plan,
        scope: Scope,
        *,
        force: bool,
    ) -> tuple[bytes, ...]:
        """What is in the way of the plan and differs from `base`, the state last known, and `left`.

        A state that was captured and never became durable may have lost a part to a power cut.
        """
        if base is None:
            return ()
        touched = {change.path for change in plan.changes}
        try:
            touched &= self._differing(base, before, scope)
            for brought in left if touched else ():
                with suppress(Damaged):  # then it tells nothing
                    touched &= self._differing(brought, before, scope)
            return tuple(change.path for change in plan.changes if change.path in touched)
        except Damaged as error:
            if force:
                return ()
            raise NotFound(
                "the state last known is not whole in the store, so others' changes cannot be told",
                where=base.hex(),
                hint="--force restores without that check (undoable)",
            ) from error

    def _differing(self, one: ObjectId, other: ObjectId, scope: Scope) -> set[bytes]:
        return {change.path for change in diff_roots(self._writer, one, other, scope.paths)}

    def _would_lose(self, conflicts: tuple[bytes, ...]) -> WouldLoseChanges:
        return WouldLoseChanges(
            f"somebody else changed {len(conflicts)} path{'s' * (len(conflicts) != 1)}"
            " since the last checkpoint",
            list(conflicts),
            where=os.fsdecode(self._workspace.path),
        )

    def _outdated(self) -> PreviewOutdated:
        return PreviewOutdated(
            "what would be done now is not what was expected; nothing was touched",
            where=os.fsdecode(self._workspace.path),
            hint="look again with --dry-run: it says what to --expect now",
        )

    def _describe(
        self,
        handles: Handles,
        plan: Plan,
        before: ObjectId,
        target: ObjectId,
        scope: Scope,
        *,
        ending: frozenset[int] = frozenset(),
    ) -> RestoreReport:
        created = replaced = deleted = 0
        for change in plan.changes:
            was = change.before is not None and change.before.kind != Kind.DIR
            will = change.after is not None and change.after.kind != Kind.DIR
            created += will and not was
            deleted += was and not will
            replaced += was and will
        held = bystanders.held_open(handles, plan, self._workspace.path, ending)
        own = bystanders.own_code((c.path for c in plan.changes), self._workspace.path)
        return RestoreReport(
            target=target,
            before=before if plan.changes else None,
            root=None if plan.changes else before,
            created=created,
            replaced=replaced,
            deleted=deleted,
            unchanged=_files_in_scope(self._writer, target, scope) - created - replaced,
            changes=plan.changes,
            held_open=held,
            own_code=own,
            links_broken=plan.links_broken,
        )

    def _apply(self, ground: Ground, plan: Plan, begun: Begin) -> Apply:
        return Apply(
            ground,
            self._writer,
            plan,
            begun.id,
            skip_damaged=begun.force,
            progress=self._progress,
        )

    def _carry_out(
        self,
        handles: Handles,
        apply: Apply,
        plan: Plan,
        begun: Begin,
        *,
        report: RestoreReport,
        tracker: Tracker | None,
    ) -> RestoreReport:
        try:
            apply.run()
        except (Unwritable, CrabError) as error:
            finish.settle(handles, plan if apply.changed else plan.nothing)
            if not apply.changed:
                self._log.append(End(begun.id, begun.before, changed=False, wall_ns=time.time_ns()))
            if isinstance(error, Unwritable):
                raise _failed(error, self._workspace, touched=apply.changed) from error
            raise
        _committed()
        left = dict(report.not_restored) | apply.problems
        with self._handles(may_loosen=True) as fresh:
            done = finish.finish(
                handles, fresh, self._writer, plan, left=left, partial=apply.partial
            )
        root = begun.target
        if done.problems or begun.paths or self._left_alone:
            root = self._capture(tracker or self._tracker(), durable=True)
        self._log.append(self._end(begun, root))
        _ended()
        self._log.compact(UNDO_KEEP_DAYS)
        return replace(
            report,
            root=root,
            not_restored=tuple(sorted(done.problems.items())),
            verified=done.verified,
        )


def _covered(change: Change, excluded: Covered) -> bool:
    entry = change.after if change.after is not None else change.before
    return entry is not None and excluded.has(change.path, is_dir=entry.kind == Kind.DIR)


def _link_counter(handles: Handles) -> Callable[[bytes], int]:
    def nlink(path: bytes) -> int:
        try:
            fd, name = handles.parent(path)
            status = files.status(fd, name)
        except (Blocked, OSError):
            return 0
        return 0 if status is None else status.st_nlink

    return nlink


def _files_in_scope(reader: ObjectReader, root: ObjectId, scope: Scope) -> int:
    if scope.all:
        return read_root(reader, root).files
    total = 0
    for path in scope.paths:
        entry = entry_or_none(reader, root, path)
        if entry is not None:
            total += sum(e.kind != Kind.DIR for _, e in entries_from(reader, path, entry))
    return total


def _failed(error: Unwritable, workspace: Workspace, *, touched: bool) -> RestoreFailed:
    where = os.fsdecode(workspace.path + (b"/" + error.path if error.path else b""))
    if not touched:
        return RestoreFailed(f"{error}: nothing was changed", where=where)
    back = f"crab undo --force {shlex.quote(os.fsdecode(workspace.path))}"
    return RestoreFailed(
        f"{error}: the restore is half done",
        where=where,
        hint=f"once that is put right, the next restore or run finishes it; `{back}` goes back",
    )
