"""Hard links: which captured names share an inode, as the table beside the tree.

A tree entry does not know inode numbers (they are not state), so groups are told by a sorted table
of paths in the `Root`. Only groups with two names inside the workspace are in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crabrt.core.content import Content
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.core.trees import LinkGroups, decode_links, encode_links
from crabrt.store.contents import put_bytes, read_bytes
from crabrt.workspace.changes import join
from crabrt.workspace.index import Dir, Linked


class LinkTable:
    """The groups of one state, and where their names are in the index. Immutable once made.

    Attributes:
        content: the encoded groups in the store; None where there are none.
        groups: by path, the group it belongs to.
        places: by path, directory and name.
    """

    __slots__ = ("_linked", "content", "groups", "places")

    def __init__(self, linked: Mapping[Dir, tuple[Linked, ...]] | None = None) -> None:
        self._linked = dict(linked or {})
        self.content: Content | None = None
        self.places: dict[bytes, tuple[Dir, bytes]] = {}
        by_inode: dict[tuple[int, int], list[bytes]] = {}
        for node, links in self._linked.items():
            path = node.path
            for device, inode, name in links:
                full = join(path, name)
                by_inode.setdefault((device, inode), []).append(full)
                self.places[full] = (node, name)
        self.groups: dict[bytes, tuple[bytes, ...]] = {}
        for paths in by_inode.values():
            if len(paths) > 1:
                group = tuple(sorted(paths))
                self.groups.update(dict.fromkeys(group, group))

    def stored(self, writer: ObjectWriter) -> LinkTable:
        """This table with its `content` put."""
        if self.groups:
            table = tuple(sorted(set(self.groups.values())))
            self.content = put_bytes(encode_links(table), writer)
        return self

    def updated(
        self,
        linked: Mapping[Dir, tuple[Linked, ...]],
        removed: Sequence[Dir],
        writer: ObjectWriter,
    ) -> LinkTable:
        """The table after some directories changed and others went away."""
        gone = {node for top in removed for node in top.walk() if node in self._linked}
        changed = {n: links for n, links in linked.items() if links != self._linked.get(n, ())}
        if not gone and not changed:
            return self
        now = {node: links for node, links in self._linked.items() if node not in gone}
        now.update(changed)
        return LinkTable({node: links for node, links in now.items() if links}).stored(writer)


def read_groups(content: Content | None, reader: ObjectReader) -> dict[bytes, tuple[bytes, ...]]:
    """The groups of a stored table, by path.

    Raises:
        DamagedObject: it cannot be read.
    """
    if content is None:
        return {}
    where = content.ids[0].hex() if content.ids else "a link table"
    groups: LinkGroups = decode_links(read_bytes(content, reader), where)
    return {path: group for group in groups for path in group}


def regrouped(
    before: Mapping[bytes, tuple[bytes, ...]], after: Mapping[bytes, tuple[bytes, ...]]
) -> set[bytes]:
    """The paths whose group is another one."""
    if before is after:
        return set()
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
