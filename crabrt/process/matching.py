"""Whether the files that an image is of are as they were: nobody comes back to others.

What a process has read of a file is in its memory, and what it wrote it takes for granted. CRIU
looks at lengths alone. So what the checkpoint of the files holds has to be as that says, and what
it does not (excluded, on another file system, outside of the workspace) as it was when the image
was taken: by size and time of modification.

A log that nobody of the tree could read is no obstacle, unless the checkpoint holds it: it goes on
at its end.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.processes import FileHeld, ProcessTree
from crabrt.core.trees import Entry, Kind
from crabrt.errors import DamagedObject, NotFound
from crabrt.workspace import Workspace, find_entry
from crabrt.workspace.ignore import Covered

_NAMED: Final = 3


@dataclass(frozen=True)
class Matched:
    """How the files of a tree are.

    Attributes:
        why_not: why the tree cannot come back to them, for people; empty: it can.
        notes: which logs in the workspace are others than they were, for people.
    """

    why_not: str = ""
    notes: tuple[str, ...] = ()


class Grounds:
    """The files that are there now, after a restore.

    Args:
        reader: has the checkpoint.
        root: that of the files that were restored.
        workspace: where.
        recorded: the absolute path of the directory in which the images were taken.
    """

    def __init__(
        self, reader: ObjectReader, root: ObjectId, workspace: Workspace, recorded: bytes
    ) -> None:
        self._reader, self._root, self._here = reader, root, workspace.path
        self._recorded = recorded.rstrip(b"/") + b"/" if recorded else b""
        self._excluded = Covered(workspace.excludes)

    def match(self, tree: ProcessTree) -> Matched:
        """How the files of `tree` are; as they were, if it is of before such were recorded."""
        wrong, notes = [], []
        for held in tree.held:
            inside = self._inside(held.path)
            path = held.path if inside is None else os.path.join(self._here, inside)
            entry = self._entry(inside)
            how = _difference(path, held, entry)
            if not how:
                continue
            shown = path.decode("utf-8", "backslashreplace")
            if held.is_written_only and entry is None and os.path.isfile(path):
                notes += [f"{shown}, which it writes, {how}"] if inside is not None else []
            else:
                wrong.append(f"{shown} {how}")
        more = f", and {len(wrong) - _NAMED} more like it" if len(wrong) > _NAMED else ""
        return Matched("; ".join(wrong[:_NAMED]) + more, tuple(notes))

    def _inside(self, path: bytes) -> bytes | None:
        """`path` relative to the workspace; None if it is outside."""
        if not self._recorded or not path.startswith(self._recorded):
            return None
        return path[len(self._recorded) :]

    def _entry(self, inside: bytes | None) -> Entry | None:
        """What the checkpoint has there, if that is restored."""
        if inside is None or self._excluded.has(inside, is_dir=False):
            return None
        with contextlib.suppress(NotFound, DamagedObject):  # then it was not restored, either
            entry = find_entry(self._reader, self._root, inside)
            return entry if entry.kind == Kind.FILE else None
        return None


def _difference(path: bytes, held: FileHeld, entry: Entry | None) -> str:
    """How the file at `path` is not as it was; empty if it is."""
    size, modified_ns = held.size, held.modified_ns
    if entry is not None and entry.content is not None:
        size, modified_ns = entry.content.size, entry.mtime_ns
    try:
        now = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(now.st_mode):
        return "is no file any more"
    if now.st_size != size:
        return f"has {now.st_size} bytes now and had {size}"
    return "" if now.st_mtime_ns == modified_ns else "was modified since"
