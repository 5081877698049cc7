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

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import Entry, Kind, Leaves, put_above, put_leaves, put_leaves_again
from crabrt.workspace.changes import Change, compare, join
from crabrt.workspace.dirfd import DirStack
from crabrt.workspace.files import FileReader, Reading, directory_entry
from crabrt.workspace.index import LOCKED, Dir, Doubt, Linked
from crabrt.workspace.scan import Seen
from crabrt.workspace.stamps import GONE, STAMP, STAMP_BYTES, stamp


@dataclass(slots=True, eq=False)
class Work:
    """One directory on its way from what the index holds to what it will hold.

    Attributes:
        seen: what the scan found; for a directory that is here only because one below it changed,
            the index as it is.
        entries: by name, what will be captured.
        before: by name, what was.
        own: the directory's own entry (child missing), if its metadata was read.
        stamps: by name, for what was read.
        doubts: by name, for what was read and has to be read again.
        touched: the names whose entry may differ from what was.
        leaves: the nodes the entries were stored as, if they were.
    """

    seen: Seen
    entries: dict[bytes, Entry]
    before: dict[bytes, Entry]
    own: Entry | None = None
    stamps: dict[bytes, bytes] = field(default_factory=dict)
    doubts: dict[bytes, Doubt] = field(default_factory=dict)
    touched: set[bytes] = field(default_factory=set)
    leaves: Leaves = ()

    def keep(self, entry: Entry) -> None:
        """Capture `entry`."""
        self.entries[entry.name] = entry
        self.touched.add(entry.name)

    def drop(self, name: bytes) -> None:
        """Capture nothing under `name`."""
        if self.entries.pop(name, None) is not None:
            self.touched.add(name)

    @property
    def differs(self) -> bool:
        """Whether an entry is another one."""
        return any(self.entries.get(name) != self.before.get(name) for name in self.touched)


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

    def count(self, entry: Entry, sign: int) -> None:
        """Add (or, with -1, take away) an entry in the totals."""
        if entry.kind != Kind.DIR:
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
            chain = [self._root]
            for one in seen:
                work = self._work_for(one.dir, one)
                if self._go(stack, chain, one.dir):
                    self._read_directory(stack.fd, work)
        self._forget_lost()
        self._build()
        return self._outcome

    def _go(self, stack: DirStack, chain: list[Dir], target: Dir) -> bool:
        """Move the stack to `target`; False if it, or a directory above it, is not there."""
        down: list[Dir] = []
        node: Dir | None = target
        while node is not None and not (node.depth < len(chain) and chain[node.depth] is node):
            down.append(node)
            node = node.parent
        assert node is not None, "the root is always in the chain"
        stack.up_to(node.depth)
        del chain[node.depth + 1 :]
        for below in reversed(down):
            try:
                stack.push(below.name)
            except OSError as error:
                self._lose(below, error)
                return False
            chain.append(below)
        return True

    def _lose(self, lost: Dir, error: OSError) -> None:
        assert lost.parent is not None
        self._lost.add(lost)
        work = self._work_for(lost.parent)
        work.seen.dirs.pop(lost.name, None)
        work.seen.settled = False
        if isinstance(error, PermissionError):
            work.seen.skipped[lost.name] = LOCKED

    def _work_for(self, node: Dir, seen: Seen | None = None) -> Work:
        work = self._work.get(node)
        if work is None:
            before = {entry.name: entry for entry in node.entries}
            seen = seen or unchanged(node)
            work = self._work[node] = Work(seen, dict(before), before)
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
        if seen.names != node.names:
            for name in work.before.keys() - set(seen.names):
                work.drop(name)
        for name in seen.dirs.keys() - node.dirs.keys():
            work.drop(name)  # until its own entry is made
        for name, reason in seen.skipped.items():
            if reason != node.skipped.get(name):
                work.drop(name)  # a socket took its place, a mount covers it
        if seen.read:
            self._read_names(fd, work)

    def _read_names(self, fd: int, work: Work) -> None:
        seen, node = work.seen, work.seen.dir
        for i in seen.read:
            name = seen.names[i]
            reading = self._reader.read(fd, name, work.before.get(name), node.stamp_of(name))
            self._take(work, name, reading)

    def _take(self, work: Work, name: bytes, reading: Reading) -> None:
        """Note what became of one name."""
        outcome = self._outcome
        outcome.bytes_read += reading.bytes_read
        work.stamps[name] = reading.stamp or GONE
        work.drop(name)
        if reading.doubt is not None:
            work.doubts[name] = reading.doubt
            outcome.torn = outcome.torn or reading.doubt == "torn"
        if reading.reason is not None:
            work.seen.skipped[name] = reading.reason
        if reading.entry is not None:
            work.keep(reading.entry)
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
            change = compare(b"", self._top, self._outcome.top) if self._top else None
            if change is not None:
                self._outcome.changes.append(change)

    def _close(self, node: Dir, above: Work) -> None:
        work = self._work[node]
        name = node.name
        known = above.before.get(name)
        known = known if known is not None and known.kind == Kind.DIR else None
        self._drop_lost_children(work)
        above.keep(self._entry_of(work, known))
        self._note_changes(work)

    def _entry_of(self, work: Work, known: Entry | None) -> Entry:
        own = work.own if work.own is not None else known
        assert own is not None
        same = known is not None and not work.differs
        child = known.child if known is not None and same else self._put_entries(work)
        return msgspec.structs.replace(own, child=child)

    def _put_entries(self, work: Work) -> ObjectId:
        """Store the entries of a directory; the nodes that hold no touched name are there."""
        put, leaves = self._writer.put, work.seen.dir.leaves
        if leaves and work.entries.keys() == work.before.keys():
            names, entry_of = list(work.before), work.entries.__getitem__
            work.leaves = put_leaves_again(leaves, names, entry_of, work.touched, put)
        else:
            work.leaves = put_leaves([work.entries[name] for name in sorted(work.entries)], put)
        return put_above(work.leaves, put)

    def _drop_lost_children(self, work: Work) -> None:
        for name in work.seen.dir.dirs.keys() - work.seen.dirs.keys():
            entry = work.entries.get(name)
            if entry is not None and entry.kind == Kind.DIR:
                work.drop(name)

    def _note_changes(self, work: Work) -> None:
        outcome, node = self._outcome, work.seen.dir
        path: bytes | None = None
        for name in work.touched:
            before, after = work.before.get(name), work.entries.get(name)
            if before == after:
                continue
            if before is not None:
                outcome.count(before, -1)
            if after is not None:
                outcome.count(after, +1)
            if self._top is None:
                continue
            path = node.path if path is None else path
            change = compare(join(path, name), before, after)
            if change is not None:
                outcome.changes.append(change)
            if before is not None and before.kind == Kind.DIR and name not in work.seen.dirs:
                self._note_removed(node.dirs[name])

    def _note_removed(self, node: Dir) -> None:
        outcome = self._outcome
        outcome.removed.append(node)
        for path, entry in node.tree():
            outcome.count(entry, -1)
            outcome.changes.append(Change(path, ("removed",), entry, None))

    def linked_in(self, work: Work) -> tuple[Linked, ...]:
        """The captured names of a directory whose file has more than one link."""
        node = work.seen.dir
        entries = work.entries
        found = {
            link[2]: link
            for link in node.linked
            if link[2] in entries and entries[link[2]].kind != Kind.DIR
        }
        for name in work.stamps:
            found.pop(name, None)
            if name in work.entries:
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
        dirs=dict(node.dirs),
        skipped=dict(node.skipped),
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
    kept = {n: d for n, d in node.doubts.items() if n not in work.stamps and n in work.entries}
    node.doubts = kept | work.doubts
    node.linked = linked
    if work.differs:
        node.hold(work.entries)
        if not work.before:
            node.pack()  # all of a first capture would take much memory until it is saved
        node.leaves = work.leaves
