"""A stored state with other entries at some paths: only directories that differ are made anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.listing import put_directory
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import (
    Entry,
    Kind,
    LinkGroups,
    Root,
    encode_links,
    encode_root,
    read_directory,
)
from crabrt.store.contents import put_bytes
from crabrt.workspace.diff import read_root
from crabrt.workspace.restoring.handles import split
from crabrt.workspace.restoring.plan import entry_or_none

Edits = dict[bytes, Entry | None]
"""By path, what stands there instead, None for nothing; of a directory, not what is in it."""


def put_edited(
    writer: ObjectWriter, base: ObjectId, edits: Mapping[bytes, Entry | None], links: LinkGroups
) -> ObjectId:
    """Store `base` with `edits` and the hard links `links`; the id of its root. Not synced.

    What is in a directory goes with it; what is to be in something that is none is left out.

    Raises:
        DamagedObject: `base` cannot be read.
        StoreUnavailable: it cannot be stored.
    """
    state = read_root(writer, base)
    top, files, size_bytes = state.entry, state.files, state.size_bytes
    inside = _by_directory(edits)
    for path in sorted(inside, key=_depth, reverse=True):  # no recursion: it may be deep
        old = entry_or_none(writer, base, path)
        own = edits.get(path, old)
        entries = _entries(writer, old)
        for name, entry in inside[path].items():
            before = entries.pop(name, None)
            after = entry if own is not None and own.kind == Kind.DIR else None
            files += _files(after) - _files(before)
            size_bytes += _size(after) - _size(before)
            if after is not None:
                entries[name] = after
        if own is None or own.kind != Kind.DIR:
            continue
        child = put_directory([entries[name] for name in sorted(entries)], writer.put)
        now = msgspec.structs.replace(own, child=child)
        if path:
            above, name = split(path)
            inside[above][name] = now
        else:
            top = now
    content = put_bytes(encode_links(links), writer) if links else None
    return writer.put(encode_root(Root(top, content, files, size_bytes)), ObjectKind.ROOT)


def _by_directory(edits: Mapping[bytes, Entry | None]) -> dict[bytes, Edits]:
    """The edits in each directory that has any, by name; all directories above those, too."""
    inside: dict[bytes, Edits] = defaultdict(dict)
    for path, entry in edits.items():
        above, name = split(path)
        if path:
            inside[above][name] = entry
        if not path or (entry is not None and entry.kind == Kind.DIR):
            _ = inside[path]
    for path in list(inside):
        above = path
        while above and (above := split(above)[0]) not in inside:
            _ = inside[above]
    return inside


def _entries(writer: ObjectWriter, directory: Entry | None) -> dict[bytes, Entry]:
    if directory is None or directory.kind != Kind.DIR:
        return {}
    return {one.name: one for one in read_directory(ObjectId(directory.child), writer.get)}


def _depth(path: bytes) -> int:
    return path.count(b"/") + 1 if path else 0


def _files(entry: Entry | None) -> int:
    return entry is not None and entry.kind != Kind.DIR


def _size(entry: Entry | None) -> int:
    return entry.content.size if entry is not None and entry.content is not None else 0
