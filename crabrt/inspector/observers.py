"""Observers: who says what may have changed in a workspace since the last look.

`ScanObserver` looks at everything; `AutoObserver` begins so. `WatchObserver` has a watch tell it
where to look, scans everything whenever the watch is not sure, and audits it: now and then, while
nobody waits, it scans everything anyhow and tells what the watch had missed.

The answer is a `workspace.Scan` in both cases: equal is claimed only where stamps prove it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from crabrt.inspector.watch import Dirty, Unwatchable, Watch, open_watch
from crabrt.workspace import Cancelled, Scan, Suspects, Tracker
from crabrt.workspace.changes import join
from crabrt.workspace.mapped import unchecked
from crabrt.workspace.stamps import STAMP, inode_and_device

AUDIT_EVERY_S = 60.0
AUDIT_SHARE = 400
"""An audit runs at most every `AUDIT_EVERY_S`, and so seldom that it takes at most one part in
`AUDIT_SHARE` of the time."""

WATCH_FROM_S = 0.01
"""A scan that takes more of a processor's time is worth a watch."""

_MISSED_MAX = 20

_PEEKED_MOST = 20_000
"""With more places pending nobody peeks: what happens then is gathered by the watch, in bounds."""


class Look(msgspec.Struct, frozen=True):
    """One look at a workspace.

    Attributes:
        scan: what it gave.
        observer: who looked, for people: ``scan``, ``fanotify``, or ``scan (why not fanotify)``.
        unobserved: what could not be looked at: processes that may store into files they hold
            without that being reported.
    """

    scan: Scan
    observer: str
    unobserved: tuple[str, ...] = ()


class Observer(Protocol):
    """Owned by the thread that owns the `Tracker`; `close` may come from another."""

    @property
    def name(self) -> str:
        """``scan`` or ``fanotify``."""
        ...

    def look(self, tracker: Tracker) -> Look:
        """What may have changed since the last look that was `settled`.

        Raises:
            CrabError: as `Tracker.scan`.
        """
        ...

    @property
    def watches(self) -> bool:
        """Whether `peek` may tell anything. Any thread may ask."""
        ...

    def peek(self) -> Suspects | None:
        """Where something happened that was not told yet, for who wants to read it early.

        It is looked at by the next look all the same. None if that will be at everything.
        """
        ...

    def settled(self) -> None:
        """The tracker holds what the last look found."""
        ...

    def distrust(self) -> None:
        """The tracker is another one, or an older state of it: the next look is at everything."""
        ...

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:
        """If it is time: look at everything; paths that the observer would have missed."""
        ...

    def close(self) -> None:
        """Stop observing."""
        ...


class ScanObserver:
    """Looks at everything, every time. Works everywhere.

    Args:
        why: no watch could be had, if one was wanted.
    """

    name = "scan"

    def __init__(self, why: str = "") -> None:
        self._by = f"scan ({why})" if why else self.name

    def look(self, tracker: Tracker) -> Look:
        """See `Observer`."""
        return Look(tracker.scan(), self._by)

    @property
    def watches(self) -> bool:
        """See `Observer`."""
        return False

    def peek(self) -> Suspects | None:
        """See `Observer`."""
        return None

    def settled(self) -> None:
        """See `Observer`."""

    def distrust(self) -> None:
        """See `Observer`."""

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:  # noqa: ARG002 - the port's
        """See `Observer`: there is nothing that a scan could miss and another could not."""
        return ()

    def close(self) -> None:
        """See `Observer`."""


class WatchObserver:
    """Looks where a watch says, and at everything when the watch does not know.

    What the watch told is kept until it is `settled`: a capture that fails loses nothing.
    """

    name = "fanotify"

    def __init__(self, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = watch
        self._clock = clock
        self._pending = Suspects()
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
        return Look(scan, by, unchecked("files held by", unseen))

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
        self._unseen = holders.unseen

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
        return told

    def settled(self) -> None:
        """See `Observer`."""
        self._pending = Suspects()
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


class AutoObserver:
    """Scans while that is quick, and has a watch opened when it is not and one can be had.

    A watch costs a millisecond or two a look, whatever the size of the workspace (who holds files
    is asked of every process), and the kernel a little at every change on the file system: a small
    workspace is better off without.
    """

    def __init__(self, opened: Callable[[], Watch]) -> None:
        self._opened = opened
        self._now: ScanObserver | WatchObserver = ScanObserver()
        self._looks = 0
        self._slow = self._tried = False

    @property
    def name(self) -> str:
        """See `Observer`."""
        return self._now.name

    def look(self, tracker: Tracker) -> Look:
        """See `Observer`."""
        if self._slow and not self._tried:
            self._tried = True
            try:
                self._now = WatchObserver(self._opened())
            except Unwatchable as error:
                self._now = ScanObserver(error.message)
        began = time.thread_time()
        look = self._now.look(tracker)
        # The first look lists everything; the ones after it say what a look takes. Not by the
        # clock on the wall: on a busy machine every look takes long, and one that asks all
        # processes the longest.
        self._slow = self._looks > 0 and time.thread_time() - began > WATCH_FROM_S
        self._looks += 1
        return look

    @property
    def watches(self) -> bool:
        """See `Observer`."""
        return self._now.watches

    def peek(self) -> Suspects | None:
        """See `Observer`."""
        return self._now.peek()

    def settled(self) -> None:
        """See `Observer`."""
        self._now.settled()

    def distrust(self) -> None:
        """See `Observer`."""
        self._now.distrust()

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:
        """See `Observer`."""
        return self._now.audit(tracker, cancelled)

    def close(self) -> None:
        """See `Observer`."""
        self._now.close()


def choose(wanted: str, workspace: bytes, home: Path, *, mark: bytes) -> Observer:
    """The observer for a workspace.

    Args:
        wanted: ``scan``, ``fanotify``, or ``auto``, which is the cheaper one that can be had.
        workspace: its path.
        home: of the store.
        mark: ``NAME=VALUE`` in the environment of what the run starts.

    Raises:
        Unwatchable: ``fanotify`` was asked for and cannot be had; the error says why.
    """
    opened = partial(open_watch, workspace, home, mark=mark)
    if wanted == "scan":
        return ScanObserver()
    if wanted != "fanotify":
        return AutoObserver(opened)
    try:
        return WatchObserver(opened())
    except Unwatchable as error:
        raise _named_and_refused(error) from error


def _named_and_refused(error: Unwatchable) -> Unwatchable:
    """`error` for whoever named the observer: which one, why it cannot be had, and what can."""
    why = error.message
    told = why if why.startswith("fanotify") else f"fanotify cannot be used here: {why}"
    hint = 'observer="auto", or CRAB_OBSERVER=auto, looks by a scan where nothing can be watched'
    hint = hint if error.hint is None else f"{hint}; {error.hint}"
    return Unwatchable(f"the observer {told}", error.reason, where=error.where, hint=hint)


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
