"""What is known once a restore is over: what differs from it later is somebody else's work.

What a restore leaves and what is known then are two states. A restore of some paths leaves the rest
as it was, with what people had changed there; one that takes another back brings people's changes
back. Known is what was known before, with that replaced which the restore brought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import Entry, LinkGroups
from crabrt.journal.restores import Begin
from crabrt.workspace.changes import differences
from crabrt.workspace.diff import diff_roots, read_root
from crabrt.workspace.links import read_groups
from crabrt.workspace.restoring.edited import Edits, put_edited
from crabrt.workspace.restoring.handles import split
from crabrt.workspace.restoring.metadata import METADATA
from crabrt.workspace.restoring.plan import entry_or_none
from crabrt.workspace.restoring.scope import Scope

_Groups = Mapping[bytes, tuple[bytes, ...]]


def known_after(writer: ObjectWriter, begun: Begin, root: ObjectId) -> ObjectId:
    """The root of what is known after the restore `begun`, which left the workspace as `root`.

    What it puts is not synced.

    Raises:
        DamagedObject: one of the states cannot be read.
        StoreUnavailable: it cannot be stored.
    """
    brings = begun.known or begun.target
    if root == begun.target and not begun.paths:
        return brings
    base = begun.base or begun.before
    edits: Edits = {c.path: c.after for c in diff_roots(writer, base, brings, begun.paths)}
    not_brought = _compare_with_disk(writer, begun, root, edits)
    add_missing_parents(writer, base, root, edits)
    scope = Scope(begun.paths)

    def is_brought(path: bytes) -> bool:
        return path in scope and path not in not_brought

    groups = [read_groups(read_root(writer, one).links, writer) for one in (base, brings, root)]
    gone = {path for path, entry in edits.items() if entry is None}
    return put_edited(writer, base, edits, links_of(*groups, is_brought=is_brought, gone=gone))


def _compare_with_disk(
    writer: ObjectWriter, begun: Begin, root: ObjectId, edits: Edits
) -> set[bytes]:
    """Correct `edits` where the restore did not leave its target; the paths it did not bring.

    Metadata that could not be set is what the restore left, and nobody's work; so is what is not
    there at all. What is as it was before is as known as it was then. The rest is somebody's work.
    """
    base, brings = begun.base or begun.before, begun.known or begun.target
    not_brought: set[bytes] = set()
    for change in diff_roots(writer, begun.target, root, begun.paths):
        path, wanted, found = change.path, change.before, change.after
        if found is None:
            edits[path] = None
            continue
        if same_but_metadata(found, wanted):
            if not differences(entry_or_none(writer, brings, path), wanted):
                edits[path] = found
            continue
        not_brought.add(path)
        was = entry_or_none(writer, begun.before, path)
        was_known = not differences(entry_or_none(writer, base, path), was)
        if was_known and same_but_metadata(found, was):
            edits[path] = found
        else:
            edits.pop(path, None)
    return not_brought


def same_but_metadata(one: Entry, other: Entry | None) -> bool:
    """Whether kind and bytes are the same."""
    return METADATA.issuperset(differences(one, other))


def add_missing_parents(writer: ObjectWriter, base: ObjectId, root: ObjectId, edits: Edits) -> None:
    """Directories that were made for what came back in them are known, too."""
    parents = {split(path)[0] for path, entry in edits.items() if entry is not None}
    for above in sorted(parents):
        while above and above not in edits and entry_or_none(writer, base, above) is None:
            edits[above] = entry_or_none(writer, root, above)
            above = split(above)[0]  # noqa: PLW2901 - upwards


def links_of(
    base: _Groups,
    brings: _Groups,
    there: _Groups,
    *,
    is_brought: Callable[[bytes], bool],
    gone: set[bytes],
) -> LinkGroups:
    """Who shares a file: as it was brought, and elsewhere as it was known.

    A name that was brought and one that was not share one if they did, and still do.
    """
    leader = {path: path for path in (*base, *brings) if path not in gone}

    def of(path: bytes) -> bytes:
        while leader[path] != path:
            path = leader[path]
        return path

    def join(paths: Sequence[bytes]) -> None:
        for path in paths[1:]:
            leader[of(path)] = of(paths[0])

    for group in set(base.values()):
        join([path for path in group if path in leader and not is_brought(path)])
    for group in set(brings.values()):
        join([path for path in group if path in leader and is_brought(path)])
    for pair in _mixed(base, there, is_brought):
        if leader.keys() >= set(pair):
            join(pair)
    found: dict[bytes, list[bytes]] = {}
    for path in sorted(leader):
        found.setdefault(of(path), []).append(path)
    return tuple(sorted(tuple(paths) for paths in found.values() if len(paths) > 1))


def _mixed(
    base: _Groups, there: _Groups, is_brought: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, bytes]]:
    """Names of one file, in `base` and on the disk, of which the second alone was brought."""
    for path, group in base.items():
        if not is_brought(path):
            for other in group:
                if is_brought(other) and other in there.get(path, ()):
                    yield path, other
