"""What a restore did, for people and programs: one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from crabrt.core.ids import ObjectId
from crabrt.workspace.changes import Change


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """The outcome of a restore, or, after a dry run, what it would be.

    Paths are raw bytes, relative to the directory that was restored.

    Attributes:
        target: the root that was to be restored.
        before: the root of the state that was there (the undo point); None where nothing had to
            change, and for a restore elsewhere.
        root: the state the restore left, where it is known; else None.
        created, replaced, deleted, unchanged: counts of names that are not directories. A change of
            metadata alone counts as replaced.
        changes: every change that was to be made, in path order.
        conflicts: paths somebody else changed that were to be overwritten: by force, in a dry run
            that would refuse, or left alone by a recovery.
        not_restored: (path, why) for what is not as in the target.
        held_open: paths replaced or deleted that other processes hold open or mapped: they go on
            with the old file.
        own_code: paths touched that belong to the code or environment of this very process.
        links_broken: paths that shared a file with a name outside the restored paths, and now
            have their own.
        verified: what was written was read back and is as in the target.
        recovered: this finished a restore that had been interrupted.
        dry_run: nothing was touched.
        finishes: a dry run that stands for one which finishes an interrupted restore first; all
            else is as it will be then.
        preview: the id of what it lists, see `previews`; empty for a restore elsewhere.
    """

    target: ObjectId
    before: ObjectId | None = None
    root: ObjectId | None = None
    created: int = 0
    replaced: int = 0
    deleted: int = 0
    unchanged: int = 0
    changes: tuple[Change, ...] = ()
    conflicts: tuple[bytes, ...] = ()
    not_restored: tuple[tuple[bytes, str], ...] = ()
    held_open: tuple[bytes, ...] = ()
    own_code: tuple[bytes, ...] = ()
    links_broken: tuple[bytes, ...] = ()
    verified: bool = False
    recovered: bool = False
    dry_run: bool = False
    finishes: bool = False
    preview: str = ""

    @property
    def complete(self) -> bool:
        """Whether all is as in the target and nobody goes on with an old file (else exit 3)."""
        return self.verified and not (self.not_restored or self.held_open)
