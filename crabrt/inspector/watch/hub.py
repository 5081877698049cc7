"""One fanotify group for one file system, and the feeds of the workspaces that share it.

The kernel queues an event before the call that caused it returns. So whoever reads until nothing
waits has seen all that happened before it began to read: that is what makes `drain` a barrier.

Moving a directory changes what handles resolve to. A round of events is therefore only trusted if
nothing waits when it is done: a move that raced with it is read next, in the same drain, and widens
what was reported (the moved directory is a subtree; a workspace that moved is unknown).
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from crabrt.inspector.watch import kernel
from crabrt.inspector.watch.dirty import SELF, Dirty
from crabrt.inspector.watch.errors import Refused, SourceLost
from crabrt.inspector.watch.events import Folded, Malformed, Queue, Report, parse
from crabrt.inspector.watch.feed import Feed
from crabrt.inspector.watch.kernel import CONTENT, NAMES, ONDIR, Handle
from crabrt.inspector.watch.kin import Kin
from crabrt.inspector.watch.places import Places, Spot

_ROUNDS_MOST: Final = 16
"""A drain beside a writer that never rests ends: what happens during it belongs to the next one."""

_REMOVAL_WAITS: Final = 50
_REMOVAL_WAIT_S: Final = 0.001

_HITS_MOST: Final = 20_000
"""Directories remembered; about 400 bytes each."""

_GONE_MOST: Final = 50_000
_JUDGED_MOST: Final = 64
"""Processes looked up in a round; each costs a file or two of ``/proc``."""

_MOVED: Final = kernel.MOVED_FROM | kernel.MOVED_TO
_ARRIVED: Final = kernel.CREATE | kernel.MOVED_TO

Hits = tuple[tuple[Feed, bytes], ...]


class Hub:
    """Reads a group and hands out what it reports. Safe to use from several threads.

    Args:
        group: the fanotify group, marked; stays the caller's.
        mount: a descriptor in the view (see `view`); stays the caller's.

    Attributes:
        lock: held while anything is read or handed out.
        dead: why nothing can be told any more; None while it can.
    """

    def __init__(self, group: int, mount: int) -> None:
        self.lock = threading.RLock()
        self._mount = mount
        self._queue = Queue(group)
        self._places = Places(mount)
        self._feeds: list[Feed] = []
        self._hits: dict[Handle, tuple[Spot, Hits]] = {}
        self._gone: set[Handle] = set()
        self._lost: set[Handle] = set()
        self._here = self._where()
        self.dead: str | None = None

    @property
    def feeds(self) -> int:
        """How many workspaces are fed."""
        return len(self._feeds)

    def add(self, workspace: int, kin: Kin) -> Feed:
        """Feed the workspace whose directory is open at `workspace`, from now on.

        Raises:
            Refused: it does not lie where this hub can see it.
            SourceLost: this hub is done.
        """
        with self.lock:
            self._check()
            self.round()
            try:
                handle = kernel.handle_of(workspace)
                spot = self._places.of(handle)
                if spot.path is None or not spot.exact:
                    raise Refused("the workspace cannot be found by its handle")
                there, mine = os.stat(spot.path), os.fstat(workspace)
            except OSError as error:
                raise Refused(f"the workspace cannot be found: {error.strerror}") from error
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                raise Refused("the workspace lies elsewhere for the process that watches")
            feed = Feed(handle, spot.path, kin)
            feed.start(self._queue.events)
            self._feeds.append(feed)
            self._hits.clear()
            return feed

    def remove(self, feed: Feed) -> None:
        """Feed it no longer."""
        with self.lock:
            if feed in self._feeds:
                self._feeds.remove(feed)
                self._hits.clear()

    def drain(self, feed: Feed) -> Dirty:
        """All that happened in `feed`'s workspace before this call.

        Raises:
            SourceLost: the group cannot be read any more.
        """
        with self.lock:
            self._check()
            for _ in range(_ROUNDS_MOST):
                if not self.round():
                    break
            self._await_removals()
            self._check()
            if self._lost:
                self._lost.clear()
                self._lose("a directory was removed in a way that was not reported")
            self._gone.clear()
            return feed.take(self._queue.events)

    def peek(self, feed: Feed) -> Dirty:
        """What was gathered for `feed`'s workspace so far. The next drain tells the rest.

        Raises:
            SourceLost: the group cannot be read any more.
        """
        with self.lock:
            self._check()
            self.round()
            self._check()
            return feed.take(self._queue.events)

    def _await_removals(self) -> None:
        """A directory is gone a moment before the kernel says so: give it that moment."""
        for _ in range(_REMOVAL_WAITS):
            if not self._lost:
                return
            time.sleep(_REMOVAL_WAIT_S)
            self.round()

    def round(self) -> int:
        """Read what waits and place it; how many distinct reports that were."""
        with self.lock:
            if self.dead is not None:
                return 0
            try:
                found = self._queue.read()
                if found:
                    self._take(found)
            except Malformed as error:
                self.fail(f"the kernel's events are not understood: {error}")
                return 0
            except OSError as error:
                self.fail(f"the kernel's events cannot be read: {error.strerror}")
                return 0
            if self._queue.overflowed:
                self._queue.overflowed = False
                self._hits.clear()
                self._lose("the kernel's queue overflowed")
            return len(found)

    def fail(self, why: str) -> None:
        """This hub reports nothing any more: its feeds' watches find another."""
        with self.lock:
            if self.dead is None:
                self.dead = why

    def _check(self) -> None:
        if self.dead is not None:
            raise SourceLost(self.dead)

    def _lose(self, why: str) -> None:
        for feed in self._feeds:
            feed.lose(why)

    def _where(self) -> bytes:
        return os.readlink(b"/proc/self/fd/%d" % self._mount)

    def _take(self, found: Folded) -> None:
        reports = [parse(records, mask, pid) for records, (mask, pid) in found.items()]
        ended = {
            report.object or report.directory
            for report in reports
            if report.mask & kernel.DELETE_SELF
        }
        folders = [report for report in reports if report.mask & ONDIR]
        for report in folders:
            if report.mask & kernel.DELETE_SELF:
                self._gone.add(report.object or report.directory)
            if report.mask & kernel.DELETE:
                self._gone.add(report.object)
        moved = [report.object for report in folders if report.mask & _MOVED]
        if len(self._gone) > _GONE_MOST:  # nobody drains; what is then taken for lost widens
            self._gone.clear()
        try:
            self._follow_view()
            if moved:
                self._follow(moved)
            self._report(reports, ended)
            self._follow_view()
        except OSError as error:
            self._hits.clear()
            self._lose(f"a directory cannot be resolved: {error.strerror}")
        self._lost -= self._gone

    def _report(self, reports: list[Report], ended: set[Handle]) -> None:
        """Hand each report to the feeds it is for. The loop is what a burst costs."""
        strays: set[Handle] = set()
        judged: dict[tuple[Kin, int], bool | None] = {}
        known, is_at = self._hits, self._places.is_at
        for report in reports:
            mask, directory, name, target, _ = report
            if mask & kernel.DELETE_SELF and not mask & NAMES:
                continue
            if not directory:
                strays.add(target)
                continue
            spot, hits = known.get(directory) or self._locate(directory)
            if hits:
                self._tell(hits, report, judged, exact=spot.exact)
            if mask & CONTENT and not mask & ONDIR and target not in ended:
                path = spot.path
                if path is None or not spot.exact or not is_at(path + b"/" + name, target):
                    strays.add(target)
        for stray in strays - ended:
            self._chase(stray)

    def _tell(
        self,
        hits: Hits,
        report: Report,
        judged: dict[tuple[Kin, int], bool | None],
        *,
        exact: bool,
    ) -> None:
        mask, _, name, _, pid = report
        if name == b".":
            name = SELF
        for feed, relative in hits:
            if not exact:
                feed.subtree(relative)
                continue
            feed.name(relative, name)
            if mask & ONDIR and mask & _ARRIVED:
                feed.subtree(_join(relative, name))
            if pid != feed.kin.pid and self._is_foreign(feed.kin, pid, judged):
                feed.foreign(pid, _join(relative, name))

    def _follow_view(self) -> None:
        """Mounts move without an event; then nothing that was resolved can be compared."""
        here = self._where()
        if here != self._here:
            self._here = here
            self._hits.clear()
            for feed in self._feeds:
                self._settle(feed)
            self._lose("the file system was mounted elsewhere")

    def _settle(self, feed: Feed) -> bool:
        """Find the workspace again; whether it is where it was."""
        path = self._places.of(feed.handle).path
        if path == feed.prefix:
            return True
        if path is not None:
            feed.prefix = path
        return False

    def _follow(self, moved: list[Handle]) -> None:
        """Directories were moved: forget where they were, and see which workspaces went along."""
        self._hits.clear()
        tops = [spot.path for spot in map(self._places.of, moved) if spot.exact]
        for feed in self._feeds:
            there = self._settle(feed)
            if not there or any(top is not None and feed.is_below(top) for top in tops):
                feed.lose("the workspace, or a directory above it, was moved")

    def _locate(self, directory: Handle) -> tuple[Spot, Hits]:
        located = self._hits.get(directory)
        if located is None:
            spot = self._places.of(directory)
            hits: list[tuple[Feed, bytes]] = []
            if spot.path is not None:
                for feed in self._feeds:
                    relative = feed.relative(spot.path)
                    if relative is not None:
                        hits.append((feed, relative))
            located = (spot, tuple(hits))
            if spot.lost:
                self._lost.add(directory)
                return located
            if len(self._hits) >= _HITS_MOST:
                self._hits.clear()
            self._hits[directory] = located
        return located

    def _chase(self, stray: Handle) -> None:
        """An object that is not, or not only, where it was reported."""
        found = self._places.find(stray)
        if found is None:
            return
        for feed in self._feeds:
            if found.path is None:
                feed.inode(found.device, found.inode)
                continue
            relative = feed.relative(found.path)
            if relative is not None:
                directory, _, name = relative.rpartition(b"/")
                feed.name(directory, name)

    def _is_foreign(self, kin: Kin, pid: int, judged: dict[tuple[Kin, int], bool | None]) -> bool:
        """Whether `pid` is surely none of the run's; `judged` remembers it for this round."""
        key = (kin, pid)
        if key not in judged:
            judged[key] = kin.owns(pid) if len(judged) < _JUDGED_MOST else None
        return judged[key] is False


def _join(directory: bytes, name: bytes) -> bytes:
    if not directory or not name:
        return directory or name
    return directory.rstrip(b"/") + b"/" + name
