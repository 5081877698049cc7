"""The tracker: what is known of one workspace, kept up to date by scan and capture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crabrt.core.clock import boot_id
from crabrt.core.content import Content
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.listing import Edit
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.core.trees import Entry, Root, encode_root
from crabrt.core.verdicts import Consistency
from crabrt.errors import DamagedObject, Unprotected
from crabrt.store.batch import Batch
from crabrt.workspace.capture import Capturer, Outcome, apply
from crabrt.workspace.changes import Change, join, with_links
from crabrt.workspace.diff import read_root
from crabrt.workspace.dirfd import DirectoryMoved
from crabrt.workspace.early import EarlyReads
from crabrt.workspace.files import FileReader
from crabrt.workspace.findings import Limits, Scan, Suspects
from crabrt.workspace.identity import Workspace
from crabrt.workspace.index import Dir, Linked
from crabrt.workspace.index_file import VERSION, Header, IndexFile, Loaded, root_of
from crabrt.workspace.inodes import InodeTable
from crabrt.workspace.links import LinkTable, regrouped
from crabrt.workspace.recheck import Named, Rechecker
from crabrt.workspace.scan import Ground, Scanner
from crabrt.workspace.stamps import CLOCK_JITTER_NS, clock_offset_ns

UNWRITTEN_NS = 120_000_000_000
"""How long the kernel may keep changed pages unwritten (30 s by default), with ample reserve."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a capture made.

    Attributes:
        root: id of the state's root.
        previous: root of the state before; None for the first capture of a tracker.
        changes: every difference between the two, in path order; empty for the first capture.
        consistency: ``per_file``, or ``torn`` if a file changed under every attempt to read it.
        not_captured: path and reason of everything in the workspace that is not in the tree.
        unobserved: what could not be looked at.
        files, size_bytes: of the whole state, as in `Root`.
        bytes_read: of content, by this capture.
        scan_ms, capture_ms: how long the two took.
    """

    root: ObjectId
    previous: ObjectId | None
    changes: tuple[Change, ...]
    consistency: Consistency
    not_captured: tuple[tuple[bytes, str], ...]
    unobserved: tuple[str, ...]
    files: int
    size_bytes: int
    bytes_read: int
    scan_ms: float
    capture_ms: float


def _never() -> bool:
    return False


class Tracker:
    """The in-memory state of one workspace: the index and the last known tree.

    Not thread-safe: one engine thread owns it. `scan` changes nothing; `capture` changes it last,
    when everything is stored, so a failed capture can simply be tried again after a new scan.

    Args:
        workspace: what to track.
        huge_files, huge_bytes: a workspace beyond either is refused.
        force: it is not.

    Attributes:
        root: of the state the index describes; None before the first capture.
    """

    def __init__(
        self, workspace: Workspace, *, huge_files: int, huge_bytes: int, force: bool = False
    ) -> None:
        self.workspace = workspace
        self.root: ObjectId | None = None
        self._limits = None if force else Limits(huge_files, huge_bytes)
        self._file = IndexFile(workspace.state_dir)
        self._clear()

    def _clear(self) -> None:
        self.root = None
        self._top = Dir(None, b"")
        self._top_entry: Entry | None = None
        self._links = LinkTable()
        self._skipping: set[Dir] = set()
        self._files = self._size_bytes = self._names = 0
        self._generation = 0
        self._unsaved: set[Dir] = set()
        self._unsaved_gone: list[Dir] = []
        self._saved_root: ObjectId | None = None
        self._clock: tuple[int, int] | None = None  # wall clock, offset: at the last scan captured
        self._distrust_from_ns: int | None = None
        self._mounts: frozenset[bytes] | None = None
        self._restless: set[Dir] = set()
        self._by_inode: InodeTable | None = None

    def load(self, reader: ObjectReader) -> None:
        """Take over the saved index if it fits and `reader` has its root; else start empty.

        Where it was written in another boot, what changed shortly before the last save is read
        again: a crash may have lost the bytes and kept the times.
        """
        self._clear()
        self._file = IndexFile(self.workspace.state_dir)
        loaded = self._file.load()
        stored = self._stored_root(loaded, reader) if loaded is not None else None
        if loaded is None or stored is None:
            self._file = IndexFile(self.workspace.state_dir)
            return
        header = loaded.header
        self.root = root_of(header)
        self._top, self._top_entry = loaded.root, header.top
        self._files, self._size_bytes = header.files, header.size_bytes
        self._names = header.names
        linked: dict[Dir, tuple[Linked, ...]] = {}
        for node in loaded.root.walk():
            if node.skipped:
                self._skipping.add(node)
            self._note_doubts(node)
            if node.linked:
                linked[node] = node.linked
            if header.excludes != self._excludes:
                node.settled = False  # what is listed depends on it
        self._links = LinkTable(linked)
        self._links.content = stored.links
        if header.boot == boot_id():
            self._clock = (header.wall_ns, header.offset_ns)
        else:
            self._distrust_from_ns = min(header.wall_ns - UNWRITTEN_NS, time.time_ns())

    def _stored_root(self, loaded: Loaded, reader: ObjectReader) -> Root | None:
        """The root that the index describes, if the index is of this workspace and it is there."""
        workspace, header = self.workspace, loaded.header
        here = (workspace.path, workspace.device, workspace.inode)
        if here != (header.path, header.device, header.inode):
            return None
        try:
            return read_root(reader, root_of(header))
        except DamagedObject:
            return None

    @property
    def _excludes(self) -> tuple[str, ...]:
        matcher = self.workspace.excludes
        return matcher.patterns if matcher is not None else ()

    def save(self) -> None:
        """Persist the index. It is a cache: appended to where possible, never synced.

        Raises:
            StoreUnavailable: it cannot be written; the tracker goes on without.
        """
        if self.root is None or self._clock is None or self._top_entry is None:
            return
        if not self._unsaved and self._saved_root == self.root:
            return
        wall_ns, offset_ns = self._clock
        header = Header(
            version=VERSION,
            path=self.workspace.path,
            device=self.workspace.device,
            inode=self.workspace.inode,
            boot=boot_id(),
            excludes=self._excludes,
            root=self.root,
            top=self._top_entry,
            files=self._files,
            size_bytes=self._size_bytes,
            names=self._names,
            wall_ns=wall_ns,
            offset_ns=offset_ns,
        )
        self._file.save(header, self._top, self._unsaved, self._unsaved_gone)
        self._unsaved.clear()
        self._unsaved_gone.clear()
        self._saved_root = self.root

    def scan(
        self, cancelled: Callable[[], bool] = _never, *, suspects: Suspects | None = None
    ) -> Scan:
        """Find what may differ from the index, by stat alone.

        Args:
            cancelled: asked now and then; when it says so, the scan ends with `Cancelled`.
            suspects: where to look, from somebody who saw everything that happened since the last
                scan that a capture followed, or that was clean; None: everywhere.

        Raises:
            Cancelled, WorkspaceRefused, NotFound, Unprotected: see `Scanner.run`.
        """
        ground = Ground(
            entries=self._names,
            size_bytes=self._size_bytes,
            limits=self._limits,
            skipping=self._skipping,
            distrust_from_ns=self._distrusted(),
        )
        if suspects is not None and self.root is not None and self._mounts is not None:
            named = Named(suspects, self._names_of, self._restless, self._mounts)
            scanner: Scanner = Rechecker(self.workspace, self._top, ground, cancelled, named)
        else:
            scanner = Scanner(self.workspace, self._top, ground, cancelled)
        scan = scanner.run(self._generation)
        if scan.clean:
            self._mounts = scan.mounts
        return scan

    def _names_of(self, inodes: frozenset[tuple[int, int]]) -> Iterable[tuple[Dir, bytes]]:
        """The names that the index has for inodes."""
        if self._by_inode is None:
            self._by_inode = InodeTable(self._top)
        return self._by_inode.names_of(inodes)

    def _distrusted(self) -> int | None:
        """From which change time on stamps prove nothing, because the clock was set back."""
        floor = self._distrust_from_ns
        if self._clock is not None:
            wall, offset = self._clock
            fallen = offset - clock_offset_ns()
            if fallen > CLOCK_JITTER_NS:
                floor = min(wall - fallen, floor if floor is not None else wall)
        return floor

    def capture(
        self, scan: Scan, writer: ObjectWriter, early: EarlyReads | None = None
    ) -> Snapshot:
        """Read what may differ, store it, and bring the index up to date.

        Args:
            scan: what may differ.
            writer: where it goes.
            early: what was read of it before, through the same writer.

        Raises:
            StoreUnavailable: something cannot be stored; the index is as it was.
            Unprotected: the scan is not of this index, or directories were moved meanwhile.
            NotFound, WorkspaceRefused: the workspace is gone or was replaced.
        """
        began = time.perf_counter()
        if scan.generation != self._generation:
            raise Unprotected("the scan is older than the index", hint="scan again")
        clock = (time.time_ns(), clock_offset_ns())
        previous = self.root
        root_fd = self.workspace.open_root()
        batch = Batch(writer)
        try:
            reader = FileReader(batch, root_fd, early)
            capturer = Capturer(self._top, self._top_entry, batch, reader)
            outcome = capturer.run(root_fd, scan.seen)
        except DirectoryMoved as error:
            raise Unprotected(
                "directories were moved while they were read",
                where=os.fsdecode(self.workspace.path),
            ) from error
        finally:
            os.close(root_fd)
        linked = {node: capturer.linked_in(work) for node, work in outcome.work.items()}
        table = self._links.updated(linked, outcome.removed, batch)
        changes = self._merge_link_changes(outcome, table)
        root = self._put_root(outcome, table.content, batch)
        batch.hand_over()
        self._commit(outcome, linked, table, root, clock)
        self._mounts = scan.mounts
        return Snapshot(
            root=root,
            previous=previous,
            changes=changes if previous is not None else (),
            consistency=Consistency.TORN if outcome.torn else Consistency.PER_FILE,
            not_captured=self._not_captured(),
            unobserved=reader.unobserved,
            files=self._files,
            size_bytes=self._size_bytes,
            bytes_read=outcome.bytes_read,
            scan_ms=scan.scan_ms,
            capture_ms=(time.perf_counter() - began) * 1e3,
        )

    def _merge_link_changes(self, outcome: Outcome, table: LinkTable) -> tuple[Change, ...]:
        """The changes in path order, regrouped hard links among them."""
        changes = {change.path: change for change in outcome.changes}
        for path in regrouped(self._links.groups, table.groups):
            change = changes.get(path)
            if change is None:
                entry = self._linked_entry(path, outcome, table)
                if entry is not None:
                    changes[path] = Change(path, ("links",), entry, entry)
            else:
                changes[path] = with_links(change)
        return tuple(sorted(changes.values(), key=lambda change: change.order))

    def _linked_entry(self, path: bytes, outcome: Outcome, table: LinkTable) -> Entry | None:
        node, name = table.places.get(path) or self._links.places[path]
        work = outcome.work.get(node)
        return (work.edit if work is not None else Edit(node.listing)).now(name)

    def _put_root(self, outcome: Outcome, links: Content | None, writer: ObjectWriter) -> ObjectId:
        files = self._files + outcome.files
        size_bytes = self._size_bytes + outcome.size_bytes
        return writer.put(encode_root(Root(outcome.top, links, files, size_bytes)), ObjectKind.ROOT)

    def _commit(
        self,
        outcome: Outcome,
        linked: dict[Dir, tuple[Linked, ...]],
        table: LinkTable,
        root: ObjectId,
        clock: tuple[int, int],
    ) -> None:
        """Everything is stored: from here on nothing fails."""
        for node, work in outcome.work.items():
            self._names += len(work.seen.names) - len(node.names)
            apply(work, linked[node])
            self._unsaved.add(node)
            (self._skipping.add if node.skipped else self._skipping.discard)(node)
            self._note_doubts(node)
            if self._by_inode is not None:
                self._by_inode.add(node)
        for top in outcome.removed:
            self._unsaved_gone.append(top)
            for node in top.walk():
                self._unsaved.discard(node)
                self._names -= len(node.names)
                self._skipping.discard(node)
                self._restless.discard(node)
        self._top_entry = outcome.top
        self._links = table
        self._files += outcome.files
        self._size_bytes += outcome.size_bytes
        self._clock = clock
        self._distrust_from_ns = None
        self._generation += 1
        self.root = root

    def _note_doubts(self, node: Dir) -> None:
        lasting = any(why != "racy" for why in node.doubts.values())
        (self._restless.add if lasting else self._restless.discard)(node)

    def _not_captured(self) -> tuple[tuple[bytes, str], ...]:
        return tuple(
            sorted(
                (join(node.path, name), reason)
                for node in self._skipping
                for name, reason in node.skipped.items()
            )
        )
