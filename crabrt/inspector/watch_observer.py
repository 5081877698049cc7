"""The observer that a watch tells where to look.

It scans everything whenever the watch is not sure, and audits it: now and then, while nobody waits,
it scans everything anyhow and tells what the watch had missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from crabrt.inspector.observer import Foreign, Look
from crabrt.inspector.watch import Dirty, Watch
from crabrt.workspace import Cancelled, Scan, Suspects, Tracker
from crabrt.workspace.changes import join
from crabrt.workspace.mapped import unchecked
from crabrt.workspace.stamps import STAMP, inode_and_device

AUDIT_EVERY_S = 60.0
AUDIT_SHARE = 400
"""An audit runs at most every `AUDIT_EVERY_S`, and so seldom that it takes at most one part in
`AUDIT_SHARE` of the time."""

_MISSED_MAX = 20

_PEEKED_MOST = 20_000
"""With more places pending nobody peeks: what happens then is gathered by the watch, in bounds."""

_FOREIGN_MOST = 256
"""Paths remembered as those of others."""


class WatchObserver:
    """Looks where a watch says, and at everything when the watch does not know.

    What the watch told is kept until it is `settled`: a capture that fails loses nothing.
    """

    name = "fanotify"

    def __init__(self, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = watch
        self._clock = clock
        self._pending = Suspects()
        self._foreign: Foreign = {}
        self._why_all: str | None = "the first look"
        self._audited = clock()
        self._scan_s = 0.0
        self._unseen = 0

    def look(self, tracker: Tracker) -> Look:
        """See `Observer`."""
        self._take_in()
        why = self._why()
        scan = tracker.scan(suspects=self._pending) if why is None else tracker.scan()
        if not scan.watched:
            self._scan_s, self._audited = scan.scan_ms / 1e3, self._clock()
        by = "fanotify" if scan.watched else f"scan ({why})" if why else "scan"
        unseen = self._unseen if scan.watched else 0
        return Look(scan, by, unchecked("files held by", unseen), dict(self._foreign))

    def _take_in(self) -> None:
        """Add what happened since the last time to what is pending."""
        holders = self._watch.holders()  # before the drain: letting go is an event
        dirty = self._watch.drain()
        if dirty.unknown is not None:
            self._why_all = dirty.unknown
        places: dict[bytes, frozenset[bytes]] = {}
        inodes: set[tuple[int, int]] = set()
        mapped: set[tuple[int, int]] = set()
        for held in holders.files:
            if held.mapped:
                mapped.add((held.device, held.inode))
            elif held.path is None:
                inodes.add((held.device, held.inode))
            else:
                above, _, name = held.path.rpartition(b"/")
                places[above] = places.get(above, frozenset()) | {name}
        held_now = Suspects(places, frozenset(), frozenset(inodes), frozenset(mapped))
        self._pending = self._pending.joined(_suspects(dirty)).joined(held_now)
        self._name_foreign(dirty)
        self._unseen = holders.unseen

    def _name_foreign(self, dirty: Dirty) -> None:
        for pid, paths in dirty.foreign.items():
            for path in paths:
                if path in self._foreign or len(self._foreign) < _FOREIGN_MOST:
                    self._foreign[path] = self._foreign.get(path, frozenset()) | {pid}

    @property
    def watches(self) -> bool:
        """See `Observer`."""
        return True

    def peek(self) -> Suspects | None:
        """See `Observer`."""
        if self._why_all is not None or _size(self._pending) > _PEEKED_MOST:
            return None
        dirty = self._watch.peek()
        if dirty.unknown is not None:
            self._why_all = dirty.unknown
            return None
        told = _suspects(dirty)
        self._pending = self._pending.joined(told)
        self._name_foreign(dirty)
        return told

    def settled(self) -> None:
        """See `Observer`."""
        self._pending = Suspects()
        self._foreign = {}
        self._why_all = None

    def distrust(self) -> None:
        """See `Observer`."""
        self._why_all = "the index was read again"

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:
        """See `Observer`. What it found is looked at again by the next look, which is at all."""
        due = self._audited + max(AUDIT_EVERY_S, AUDIT_SHARE * self._scan_s)
        if self._clock() < due or self._why() is not None:
            return ()
        try:
            scan = tracker.scan(cancelled)
        except Cancelled:
            return ()
        self._scan_s, self._audited = scan.scan_ms / 1e3, self._clock()
        # What happened since the last look is no miss: it had not been asked for.
        self._take_in()
        if self._why() is not None:
            return ()
        missed = tuple(
            path for path, inodes in _differing(scan) if not _named(self._pending, path, inodes)
        )
        if missed:
            self._why_all = "the watch missed something"
        return missed[:_MISSED_MAX]

    def _why(self) -> str | None:
        """Why the next look has to be at everything; None if it has not."""
        return self._why_all

    def close(self) -> None:
        """See `Observer`."""
        self._watch.close()


def _suspects(dirty: Dirty) -> Suspects:
    return Suspects(dirty.places, dirty.subtrees, dirty.inodes)


def _size(suspects: Suspects) -> int:
    names = sum(map(len, suspects.places.values()))
    return names + len(suspects.subtrees) + len(suspects.inodes)


_Inodes = frozenset[tuple[int, int]]


def _differing(scan: Scan) -> Iterator[tuple[bytes, _Inodes]]:
    """The paths that are others than in the index, with (device, inode) before and now.

    The times of directories, which move with every name in them, do not count.
    """
    for seen in scan.seen:
        known, path = seen.dir, seen.dir.path
        if _attributes(seen.stamp) != _attributes(known.stamp):
            yield path, _inodes(known.stamp, seen.stamp)
        before, now = set(known.names), set(seen.names)
        for name in before - now:
            yield join(path, name), _inodes(known.stamp_of(name))
        for name in now - before:
            yield join(path, name), _inodes(seen.stamp_of(name))
        for i in seen.read:
            name = seen.names[i]
            was, is_now = known.stamp_of(name), seen.stamp_of(name)
            if name in before and was != is_now:
                yield join(path, name), _inodes(was, is_now)


def _attributes(stamp: bytes) -> tuple[int, ...]:
    """Mode and owner."""
    if not stamp:
        return ()
    mode, _, _, _, uid, gid, *_ = STAMP.unpack(stamp)
    return mode, uid, gid


def _inodes(*stamps: bytes) -> _Inodes:
    return frozenset((device, inode) for inode, device in map(inode_and_device, stamps))


def _named(suspects: Suspects, path: bytes, inodes: _Inodes) -> bool:
    """Whether a look at the suspects would have looked at `path`."""
    if inodes & suspects.inodes or inodes & suspects.mapped:
        return True
    above = b""
    for part in path.split(b"/"):
        if above in suspects.subtrees or part in suspects.places.get(above, ()):
            return True
        above = join(above, part)
    return above in suspects.subtrees or b"" in suspects.places.get(above, ())
