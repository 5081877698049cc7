"""Restore into another directory: a copy of a state, with the same fidelity and checks.

There is nothing to lose in a new directory, so there is no checkpoint, no log and no undo: a copy
that was killed is deleted, or finished with `force`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Kind
from crabrt.errors import NotFound, RestoreFailed, UsageError
from crabrt.workspace.diff import read_root
from crabrt.workspace.dirfd import mount_points, open_directory
from crabrt.workspace.restoring import finish
from crabrt.workspace.restoring.apply import Apply, Progress, Unwritable
from crabrt.workspace.restoring.ground import Ground
from crabrt.workspace.restoring.handles import Handles, describe
from crabrt.workspace.restoring.plan import make_fresh_plan
from crabrt.workspace.restoring.report import RestoreReport
from crabrt.workspace.restoring.scope import Scope
from crabrt.workspace.restoring.steps import Plan, without_mounts


def restore_to(
    reader: ObjectReader,
    target: ObjectId,
    directory: Path,
    *,
    paths: Sequence[bytes] = (),
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RestoreReport:
    """Make the state `target`, or only `paths` of it, in `directory`.

    Args:
        reader: has the target.
        target: the root.
        directory: absent (it is made, and those above it) or empty.
        paths: files or directories, relative, raw bytes; none: everything.
        force: the directory need not be empty: files of the target replace what is there, the rest
            stays. Files whose stored content is damaged are listed and left out.
        dry_run: make nothing; what is refused without trying is refused.
        progress: called with steps done and steps in all.

    Raises:
        UsageError: the directory is not empty or not a directory, or a path leads outside.
        NotFound: the target or a path of it does not exist.
        DamagedObject: a stored object cannot be read; nothing was made.
        RestoreFailed: the file system refuses.
    """
    scope = Scope(paths)
    if not reader.contains(target):
        raise NotFound("the state to restore is not in the store", where=target.hex())
    read_root(reader, target)
    plan = make_fresh_plan(reader, target, scope)
    if dry_run:
        _check(directory, force=force)
        return RestoreReport(
            target=target, created=_created(plan), changes=plan.changes, dry_run=True
        )
    made = _prepare(directory, force=force)
    try:
        return _restore(reader, target, directory, plan, force=force, progress=progress)
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty: somebody uses it already
                path.rmdir()
        raise


def _restore(
    reader: ObjectReader,
    target: ObjectId,
    directory: Path,
    plan: Plan,
    *,
    force: bool,
    progress: Progress | None,
) -> RestoreReport:
    real = os.path.realpath(os.fsencode(directory))
    root_fd = open_directory(real)
    try:
        mounts = mount_points(real)
        plan, blocked = without_mounts(plan, mounts)
        with Handles(root_fd, may_loosen=True, mounts=mounts) as handles:
            apply = Apply(
                Ground(handles, reader, overwrite=force),
                reader,
                plan,
                os.urandom(8).hex(),
                skip_damaged=force,
                progress=progress,
            )
            try:
                apply.run()
            except Unwritable as refusal:
                where = os.fsdecode(os.path.join(real, refusal.path))
                raise RestoreFailed(f"{refusal}", where=where) from refusal
            left = blocked | apply.problems
            with Handles(root_fd, may_loosen=True, mounts=mounts) as fresh:
                done = finish.finish(handles, fresh, reader, plan, left=left, partial=apply.partial)
    finally:
        os.close(root_fd)
    return RestoreReport(
        target=target,
        root=None if done.problems else target,
        created=_created(plan),
        changes=plan.changes,
        not_restored=tuple(sorted(done.problems.items())),
        links_broken=plan.links_broken,
        verified=done.verified,
    )


def _created(plan: Plan) -> int:
    return sum(c.after is not None and c.after.kind != Kind.DIR for c in plan.changes)


def _prepare(directory: Path, *, force: bool) -> list[Path]:
    """Make the directory if it is absent; the directories made.

    Raises:
        UsageError: it is not empty, or no directory.
        RestoreFailed: it cannot be made or read.
    """
    missing = _missing(directory)
    with _refusing(directory):
        for path in missing:
            path.mkdir()
        _refuse_occupied(directory, force=force)
    return missing


def _check(directory: Path, *, force: bool) -> None:
    """What `_prepare` refuses and can be seen without making anything; raises as that."""
    missing = _missing(directory)
    with _refusing(directory):
        if not missing:
            _refuse_occupied(directory, force=force)
        elif not os.path.isdir(missing[0].parent):
            raise NotADirectoryError


def _missing(directory: Path) -> list[Path]:
    return [p for p in (directory, *directory.parents) if not os.path.lexists(p)][::-1]


def _refuse_occupied(directory: Path, *, force: bool) -> None:
    with os.scandir(directory) as names:
        occupied = next(names, None) is not None
    if occupied and not force:
        raise UsageError(
            "the directory is not empty",
            where=str(directory),
            hint="name a new one, or merge into it with --force",
        )


@contextlib.contextmanager
def _refusing(directory: Path) -> Iterator[None]:
    try:
        yield
    except (NotADirectoryError, FileExistsError) as error:
        raise UsageError("not a directory", where=str(directory)) from error
    except OSError as error:
        raise RestoreFailed(f"cannot be used: {describe(error)}", where=str(directory)) from error
