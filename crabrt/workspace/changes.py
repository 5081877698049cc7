"""A change between two trees: which path, in which ways, and what stood there before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crabrt.core.trees import Entry, Kind

How = Literal[
    "added", "removed", "kind", "content", "mode", "owner", "times", "xattrs", "target", "links"
]


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs.

    Attributes:
        path: relative to the workspace, raw bytes; empty for the workspace directory itself.
        how: in which ways, in the order of `How`. ``added``, ``removed`` and ``kind`` stand alone.
        before, after: the entry on either side; None where there is none.
    """

    path: bytes
    how: tuple[How, ...]
    before: Entry | None
    after: Entry | None

    @property
    def order(self) -> tuple[bytes, ...]:
        """The sort key of path order: a directory, then what is in it, names as bytes."""
        return tuple(self.path.split(b"/")) if self.path else ()


def differences(before: Entry | None, after: Entry | None) -> tuple[How, ...]:
    """In which ways what stands under a name differs; what is *in* a directory is not compared."""
    if before == after:
        return ()
    if before is None or after is None:
        return ("added",) if before is None else ("removed",)
    if before.kind != after.kind:
        return ("kind",)
    how: list[How] = []
    if before.content != after.content:
        how.append("content")
    if before.mode != after.mode:
        how.append("mode")
    if before.uid != after.uid or before.gid != after.gid:
        how.append("owner")
    if before.mtime_ns != after.mtime_ns and after.kind in (Kind.FILE, Kind.SYMLINK):
        how.append("times")
    if before.xattrs != after.xattrs:
        how.append("xattrs")
    if before.target != after.target:
        how.append("target")
    return tuple(how)


def compare(path: bytes, before: Entry | None, after: Entry | None) -> Change | None:
    """The change at `path`, or None where there is none (or only inside the directory)."""
    how = differences(before, after)
    return Change(path, how, before, after) if how else None


def with_links(change: Change) -> Change:
    """`change`, and the name's hard-link group is another one, where that adds something."""
    if change.how[0] in ("added", "removed", "kind"):
        return change
    return Change(change.path, (*change.how, "links"), change.before, change.after)


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory` (empty for the workspace itself)."""
    return directory + b"/" + name if directory else name
