"""What is on the disk before a step touches it: the checkpoint's, our own, or somebody's work.

In a plain restore only what ``lstat`` shows as the checkpoint's may be replaced or removed. In a
recovery, what the killed restore put there may be, too; bytes decide then, since metadata may be
half set. A file with the target's time but other bytes is one that a power cut tore: only that is
overwritten unseen, and only if the machine was started anew since.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry, Kind
from crabrt.workspace.restoring import files
from crabrt.workspace.restoring.handles import Blocked, Handles
from crabrt.workspace.restoring.metadata import differences, kind_of
from crabrt.workspace.restoring.steps import Step

IN_THE_WAY = "something that was not captured is in the way"
FOREIGN = "somebody changed it meanwhile; it was left as it is"

_BYTES = frozenset({"content", "size", "kind", "target", "absent"})


@dataclass(frozen=True, slots=True)
class Ground:
    """Judges what is there.

    Attributes:
        handles: of the directory being restored.
        reader: has the content of both trees.
        recovering: an earlier try may have done any part of the plan.
        rebooted: and the machine was started anew since.
        overwrite: what is in the way of something new may be replaced (never a directory).
    """

    handles: Handles
    reader: ObjectReader
    recovering: bool = False
    rebooted: bool = False
    overwrite: bool = False

    def check_replaceable(self, fd: int, name: bytes, step: Step) -> None:
        """Make sure that a rename over `name` loses nothing.

        Raises:
            Blocked: it would; `FOREIGN` or `IN_THE_WAY` says how.
        """
        found = files.status(fd, name)
        if found is None:
            return
        kind = kind_of(found.st_mode)
        if kind is None or kind == Kind.DIR:
            raise Blocked(IN_THE_WAY)
        if self.overwrite or self.is_captured(fd, name, found, step):
            return
        captured = step.before is not None and step.before.kind != Kind.DIR
        raise Blocked(FOREIGN if captured or self.recovering else IN_THE_WAY)

    def is_captured(self, fd: int, name: bytes, found: os.stat_result, step: Step) -> bool:
        """Whether what is there is the checkpoint's or, in a recovery, our own."""
        before = step.before
        if before is not None and kind_of(found.st_mode) == before.kind:
            if not differences(before, found):
                return True
            if self.recovering and not self._bytes_differ(fd, name, before):
                return True
        return self.recovering and self._is_ours(fd, name, found, step.after)

    def is_done(self, step: Step) -> bool:
        """Whether an interrupted restore already brought this path to where it shall be."""
        if not self.recovering or step.after is None:
            return False
        try:
            fd, name = self.handles.parent(step.path)
            return not files.compare(fd, name, step.after, self.reader, deep=True)
        except (Blocked, FileNotFoundError):
            return False

    def _is_ours(self, fd: int, name: bytes, found: os.stat_result, after: Entry | None) -> bool:
        if after is None or kind_of(found.st_mode) != after.kind:
            return False
        if not self._bytes_differ(fd, name, after):
            return True
        return self.rebooted and found.st_mtime_ns == after.mtime_ns

    def _bytes_differ(self, fd: int, name: bytes, entry: Entry) -> bool:
        return not _BYTES.isdisjoint(files.compare(fd, name, entry, self.reader, deep=True))
