"""The capture: reads what a scan could not decide, and turns it into tree nodes and a root.

Three passes over the directories that the scan named. The first goes down with descriptors and
reads files and attributes. The second goes bottom-up and stores a node for each directory whose
entries differ; subtrees that do not differ keep their ids, so bytes written and put back give the
root that was there before. The third, when everything is stored, updates the index: a capture that
fails leaves the index as it was.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field

import msgspec

from crabrt.core.listing import Edit, Listing
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import Entry, Kind
from crabrt.workspace.changes import Change, differences, join
from crabrt.workspace.cursor import Cursor, Lost
from crabrt.workspace.dirfd import DirStack
from crabrt.workspace.files import FileReader, Reading, directory_entry
from crabrt.workspace.findings import Seen
from crabrt.workspace.index import LOCKED, Dir, Doubt, Linked
from crabrt.workspace.stamps import GONE, STAMP, STAMP_BYTES, stamp


@dataclass(slots=True, eq=False)
class Work:
    """One directory on its way from what the index holds to what it will hold.

    Attributes:
        seen: what the scan found; for a directory that is here only because one below it changed,
            the index as it is.
        edit: the entries: what was captured, and what will be.
        own: the directory's own entry (child missing), if its metadata was read.
        stamps: by name, for what was read.
        doubts: by name, for what was read and has to be read again.
        listing: the entries as they were stored, once they are.
    """

    seen: Seen
    edit: Edit
    own: Entry | None = None
    stamps: dict[bytes, bytes] = field(default_factory=dict)
    doubts: dict[bytes, Doubt] = field(default_factory=dict)
    listing: Listing | None = None


@dataclass(slots=True)
class Outcome:
    """What a capture found, not yet in the index.

    Attributes:
        work: the directories to update.
        top: the entry of the workspace itself.
        removed: the topmost directories that are no longer there.
        changes: in no particular order; none for a first capture.
        files, size_bytes: how many more there are than before.
        bytes_read: of content.
        torn: a file kept changing.
    """

    work: dict[Dir, Work]
    top: Entry
    removed: list[Dir] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    bytes_read: int = 0
    torn: bool = False

    def count(self, before: Entry | None, after: Entry | None) -> None:
        """Take what was there from the totals, and add what is."""
        for entry, sign in ((before, -1), (after, +1)):
            if entry is not None and entry.kind != Kind.DIR:
                self.files += sign
                if entry.content is not None:
                    self.size_bytes += sign * entry.content.size


class Capturer:
    """One capture. Used once, by the thread that owns the index."""

    def __init__(
        self, root: Dir, top: Entry | None, writer: ObjectWriter, reader: FileReader
    ) -> None:
        self._root = root
        self._top = top
        self._writer = writer
        self._reader = reader
        self._work: dict[Dir, Work] = {}
        self._outcome = Outcome(self._work, top or _NO_TOP)
        self._lost: set[Dir] = set()

    def run(self, root_fd: int, seen: tuple[Seen, ...]) -> Outcome:
        """Read, and store nodes.

        Raises:
            StoreUnavailable: something cannot be stored.
            DirectoryMoved: the workspace was moved about meanwhile.
        """
        with DirStack(root_fd) as stack:
            cursor = Cursor(stack, self._root)
            for one in seen:
                work = self._work_for(one.dir, one)
                try:
                    fd = cursor.go(one.dir)
                except Lost as lost:
                    self._lose(lost.dir, lost.error)
                else:
                    self._read_directory(fd, work)
        self._forget_lost()
        self._build()
        return self._outcome

    def _lose(self, lost: Dir, error: OSError) -> None:
        assert lost.parent is not None
        self._lost.add(lost)
        work = self._work_for(lost.parent)
        seen = work.seen
        seen.dirs = {name: node for name, node in seen.dirs.items() if name != lost.name}
        seen.settled = False
        if isinstance(error, PermissionError):
            seen.skipped = {**seen.skipped, lost.name: LOCKED}

    def _work_for(self, node: Dir, seen: Seen | None = None) -> Work:
        work = self._work.get(node)
        if work is None:
            work = self._work[node] = Work(seen or unchanged(node), Edit(node.listing))
        elif seen is not None and work.seen is not seen:
            # Something below was lost before this directory's own turn came.
            seen.dirs = {k: v for k, v in seen.dirs.items() if k in work.seen.dirs}
            seen.settled = seen.settled and work.seen.settled
            seen.skipped |= work.seen.skipped
            work.seen = seen
        return work

    def _read_directory(self, fd: int, work: Work) -> None:
        seen, node = work.seen, work.seen.dir
        if seen.relisted:
            status = os.fstat(fd)
            work.own = directory_entry(fd, node.name, status)
            if stamp(status) != seen.stamp:
                seen.settled = False
        edit = work.edit
        if seen.names is not node.names:
            for name in set(node.names).difference(seen.names):
                edit.drop(name)
        for name in seen.dirs.keys() - node.dirs.keys():
            edit.drop(name)  # until its own entry is made
        for name, reason in seen.skipped.items():
            if reason != node.skipped.get(name):
                edit.drop(name)  # a socket took its place, a mount covers it
        if seen.read:
            self._read_names(fd, work)

    def _read_names(self, fd: int, work: Work) -> None:
        seen, node = work.seen, work.seen.dir
        for i in seen.read:
            name = seen.names[i]
            reading = self._reader.read(fd, name, work.edit.before(name), node.stamp_of(name))
            self._take(work, name, reading)

    def _take(self, work: Work, name: bytes, reading: Reading) -> None:
        """Note what became of one name."""
        outcome = self._outcome
        outcome.bytes_read += reading.bytes_read
        work.stamps[name] = reading.stamp or GONE
        work.edit.drop(name)
        if reading.doubt is not None:
            work.doubts[name] = reading.doubt
            outcome.torn = outcome.torn or reading.doubt == "torn"
        if reading.reason is not None:
            work.seen.skipped[name] = reading.reason
        if reading.entry is not None:
            work.edit.keep(reading.entry)
        elif reading.reason is None:
            work.seen.settled = False  # it vanished: list again

    def _forget_lost(self) -> None:
        """Drop the work in directories that went away while others were read."""
        if not self._lost:
            return
        for node in list(self._work):
            above: Dir | None = node
            while above is not None and above not in self._lost:
                above = above.parent
            if above is not None:
                del self._work[node]

    def _build(self) -> None:
        """Bottom-up: nodes for directories that differ, their ids into the directory above."""
        levels: dict[int, list[Dir]] = {}
        for node in self._work:
            levels.setdefault(node.depth, []).append(node)
        for depth in range(max(levels, default=0), 0, -1):
            for node in levels.get(depth, ()):
                assert node.parent is not None
                if node.parent not in self._work:
                    levels.setdefault(depth - 1, []).append(node.parent)
                above = self._work_for(node.parent)
                self._close(node, above)
        root = self._work.get(self._root)
        if root is not None:
            self._drop_lost_children(root)
            self._outcome.top = self._entry_of(root, self._top)
            self._note_changes(root)
            how = differences(self._top, self._outcome.top) if self._top is not None else ()
            if how:
                self._outcome.changes.append(Change(b"", how, self._top, self._outcome.top))

    def _close(self, node: Dir, above: Work) -> None:
        work = self._work[node]
        name = node.name
        known = above.edit.before(name)
        known = known if known is not None and known.kind == Kind.DIR else None
        self._drop_lost_children(work)
        above.edit.keep(self._entry_of(work, known))
        self._note_changes(work)

    def _entry_of(self, work: Work, known: Entry | None) -> Entry:
        own = work.own if work.own is not None else known
        assert own is not None
        work.listing = work.edit.store(self._writer.put)
        return msgspec.structs.replace(own, child=work.listing.id)

    def _drop_lost_children(self, work: Work) -> None:
        known, seen = work.seen.dir.dirs, work.seen.dirs
        if seen is known:  # as in most directories, and it takes long in a large one
            return
        for name in known.keys() - seen.keys():
            entry = work.edit.now(name)
            if entry is not None and entry.kind == Kind.DIR:
                work.edit.drop(name)

    def _note_changes(self, work: Work) -> None:
        outcome, node = self._outcome, work.seen.dir
        for name, (before, after) in work.edit.differing().items():
            outcome.count(before, after)
            if self._top is None:
                continue
            how = differences(before, after)
            if how:
                outcome.changes.append(Change(join(node.path, name), how, before, after))
            if before is not None and before.kind == Kind.DIR and name not in work.seen.dirs:
                self._note_removed(node.dirs[name])

    def _note_removed(self, node: Dir) -> None:
        outcome = self._outcome
        outcome.removed.append(node)
        for path, entry in node.tree():
            outcome.count(entry, None)
            outcome.changes.append(Change(path, ("removed",), entry, None))

    def linked_in(self, work: Work) -> tuple[Linked, ...]:
        """The captured names of a directory whose file has more than one link."""
        if not work.stamps and not work.seen.dir.linked:
            return ()
        now = work.edit.now
        found = {}
        for link in work.seen.dir.linked:
            entry = now(link[2])
            if entry is not None and entry.kind != Kind.DIR:
                found[link[2]] = link
        for name in work.stamps:
            found.pop(name, None)
            if now(name) is not None:
                _, inode, device, links, *_ = STAMP.unpack(work.stamps[name])
                if links > 1:
                    found[name] = (device, inode, name)
        return tuple(found[name] for name in sorted(found))


_NO_TOP = Entry(b"", int(Kind.DIR), 0, 0, 0, child=bytes(32))


def unchanged(node: Dir) -> Seen:
    """A directory as the index has it, in the shape of a scan's finding."""
    return Seen(
        dir=node,
        stamp=node.stamp,
        names=node.names,
        stamps=node.stamps,
        dirs=node.dirs,
        skipped=node.skipped,
        ignores=node.ignores,
        settled=node.settled,
        relisted=False,
    )


def apply(work: Work, linked: tuple[Linked, ...]) -> None:
    """Bring the index up to date for one directory."""
    seen, node = work.seen, work.seen.dir
    stamps = seen.stamps
    if work.stamps:
        spliced = bytearray(stamps)
        for name, its_stamp in work.stamps.items():
            at = bisect_left(seen.names, name) * STAMP_BYTES
            spliced[at : at + STAMP_BYTES] = its_stamp
        stamps = bytes(spliced)
    node.stamp = seen.stamp
    node.names = seen.names
    node.stamps = stamps
    node.dirs = seen.dirs
    node.skipped = seen.skipped
    node.ignores = seen.ignores
    node.settled = seen.settled
    changes = work.edit.changes
    kept = {name: doubt for name, doubt in node.doubts.items() if name not in changes}
    node.doubts = kept | work.doubts
    node.linked = linked
    if work.listing is not None:
        node.listing = work.listing
