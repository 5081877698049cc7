"""From a difference between two roots to steps: what to remove, make, write, link, and set.

The plan is a function of two trees and a scope; it looks at the disk for one fact only (how many
names an inode has), so a recovery finds the steps of the restore that was killed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry, Kind, read_directory
from crabrt.errors import NotFound
from crabrt.workspace.changes import Change, join
from crabrt.workspace.diff import diff_roots, find_entry, read_root
from crabrt.workspace.links import read_groups
from crabrt.workspace.restoring.handles import split
from crabrt.workspace.restoring.inodes import InodePlanner
from crabrt.workspace.restoring.scope import Scope
from crabrt.workspace.restoring.steps import Action, Plan, Step


def entry_or_none(reader: ObjectReader, root: ObjectId, path: bytes) -> Entry | None:
    """What `path` is in `root`, or None. Raises `DamagedObject`."""
    try:
        return find_entry(reader, root, path)
    except NotFound:
        return None


def make_plan(
    reader: ObjectReader,
    before: ObjectId,
    target: ObjectId,
    scope: Scope,
    *,
    nlink: Callable[[bytes], int],
) -> Plan:
    """The steps from `before` to `target` within `scope`.

    Args:
        reader: has both trees.
        before: the root to go from.
        target: the root to go to.
        scope: what may be touched.
        nlink: how many names the file at a path has on the disk now; 0 if it is not there.

    Raises:
        NotFound: a path of the scope is in neither tree.
        DamagedObject: a tree cannot be read.
    """
    changes = {c.path: c for c in diff_roots(reader, before, target, scope.paths)}
    for path in scope.paths:
        _check_known(reader, before, target, path, changes)
        changes |= _missing_ancestors(reader, before, target, path, changes)
    files = InodePlanner(
        changes,
        _groups(reader, before),
        _groups(reader, target),
        scope=scope,
        target_entry=lambda path: entry_or_none(reader, target, path),
        nlink=nlink,
    )
    return _arrange(changes, files)


def make_fresh_plan(reader: ObjectReader, target: ObjectId, scope: Scope) -> Plan:
    """The steps that make `target`, or what of it is in `scope`, where nothing is yet.

    Raises:
        NotFound: a path of the scope is not in it.
        DamagedObject: the tree cannot be read.
    """
    changes: dict[bytes, Change] = {}
    for path in scope.paths or (b"",):
        for below, entry in entries_from(reader, path, find_entry(reader, target, path)):
            changes[below] = _added(below, entry)
        for parent in _parents(path):
            if parent not in changes:
                changes[parent] = _added(parent, find_entry(reader, target, parent))
    files = InodePlanner(
        changes,
        {},
        _groups(reader, target),
        scope=scope,
        target_entry=lambda path: entry_or_none(reader, target, path),
        nlink=lambda _path: 0,
    )
    return _arrange(changes, files)


def entries_from(reader: ObjectReader, path: bytes, entry: Entry) -> Iterator[tuple[bytes, Entry]]:
    """`entry`, which is at `path`, and everything below it. Raises `DamagedObject`."""
    yield path, entry
    pending = [(path, entry)]
    while pending:
        above, directory = pending.pop()
        if directory.kind != Kind.DIR:
            continue
        for item in read_directory(ObjectId(directory.child), reader.get):
            here = join(above, item.name)
            yield here, item
            if item.kind == Kind.DIR:
                pending.append((here, item))


def _added(path: bytes, entry: Entry) -> Change:
    return Change(path, ("added",), None, entry)


def _parents(path: bytes) -> Iterator[bytes]:
    """The directories above a path, nearest first, the workspace itself left out."""
    while path := split(path)[0]:
        yield path


def _arrange(changes: dict[bytes, Change], files: InodePlanner) -> Plan:
    ordered = tuple(sorted(changes.values(), key=lambda change: change.order))
    steps = [step for change in ordered for step in files.steps(change)]
    return Plan(
        changes=ordered,
        removals=tuple(_removals(ordered))[::-1],
        makings=tuple(_makings(ordered, steps)),
        metadata=tuple(s for s in steps if s.action is Action.METADATA),
        links=tuple(s for s in steps if s.action is Action.LINK),
        settle=tuple(
            (c.path, c.after)
            for c in reversed(ordered)
            if c.after is not None and c.after.kind == Kind.DIR
        ),
        links_broken=tuple(sorted(files.broken)),
    )


def _check_known(
    reader: ObjectReader,
    before: ObjectId,
    target: ObjectId,
    path: bytes,
    changes: dict[bytes, Change],
) -> None:
    if path in changes:
        return
    if entry_or_none(reader, before, path) is None and entry_or_none(reader, target, path) is None:
        raise NotFound(
            "neither in the workspace nor in the state to restore", where=os.fsdecode(path)
        )


def _missing_ancestors(
    reader: ObjectReader,
    before: ObjectId,
    target: ObjectId,
    path: bytes,
    changes: dict[bytes, Change],
) -> dict[bytes, Change]:
    """Directories above a restored path that are gone; they come back as the target has them."""
    if entry_or_none(reader, target, path) is None:
        return {}
    found: dict[bytes, Change] = {}
    for parent in _parents(path):
        if parent in changes or entry_or_none(reader, before, parent) is not None:
            break
        found[parent] = _added(parent, find_entry(reader, target, parent))
    return found


def _removals(ordered: Sequence[Change]) -> Iterator[Step]:
    for change in ordered:
        before, after = change.before, change.after
        if before is None:
            continue
        was_dir = before.kind == Kind.DIR
        if after is not None and was_dir == (after.kind == Kind.DIR):
            continue
        yield Step(Action.RMDIR if was_dir else Action.DELETE, change.path, before, after)


def _makings(ordered: Sequence[Change], steps: Sequence[Step]) -> Iterator[Step]:
    writes = {step.path: step for step in steps if step.action is Action.WRITE}
    for change in ordered:
        before, after = change.before, change.after
        if after is not None and after.kind == Kind.DIR:
            if change.path and (before is None or before.kind != Kind.DIR):
                yield Step(Action.MKDIR, change.path, before, after)
        elif change.path in writes:
            yield writes[change.path]


def _groups(reader: ObjectReader, root: ObjectId) -> dict[bytes, frozenset[bytes]]:
    groups = read_groups(read_root(reader, root).links, reader)
    sets = {group: frozenset(group) for group in set(groups.values())}
    return {path: sets[group] for path, group in groups.items()}
