"""What a scan is asked and what it answers, as values."""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from crabrt.errors import CrabError
from crabrt.workspace.index import Dir
from crabrt.workspace.stamps import STAMP_BYTES, mode_and_device


class Cancelled(CrabError):
    """The scan was told to stop; nothing was changed by it."""

    kind = "cancelled"


@dataclass(slots=True, eq=False)
class Seen:
    """A directory in which something may differ from the index.

    Attributes:
        dir: its place in the index; a fresh one that nothing refers to yet if it is new.
        stamp, names, stamps, dirs, skipped, ignores, settled: what `Dir` is to hold afterwards.
        read: indices into `names` of what has to be read.
        relisted: its own mode, owner and extended attributes have to be read, too.
    """

    dir: Dir
    stamp: bytes
    names: tuple[bytes, ...]
    stamps: bytes
    dirs: dict[bytes, Dir]
    skipped: dict[bytes, str]
    ignores: bytes
    settled: bool
    relisted: bool
    read: list[int] = field(default_factory=list)

    def places_of(self, names: Iterable[bytes]) -> Iterator[int]:
        """The indices of those of `names` that are there."""
        for name in names:
            at = bisect_left(self.names, name)
            if at < len(self.names) and self.names[at] == name:
                yield at

    def stamp_of(self, name: bytes) -> bytes:
        """The stamp of a name that is there."""
        at = bisect_left(self.names, name) * STAMP_BYTES
        return self.stamps[at : at + STAMP_BYTES]

    def is_file(self, at: int) -> bool:
        """Whether the name with that index is a regular file."""
        begin = at * STAMP_BYTES
        mode, _ = mode_and_device(self.stamps[begin : begin + STAMP_BYTES])
        return stat.S_ISREG(mode)

    @property
    def differs(self) -> bool:
        """Whether anything but times and what cannot matter is another than in the index."""
        known = self.dir
        return bool(
            self.read
            or self.relisted
            or (self.names is not known.names and self.names != known.names)
            or self.dirs.keys() != known.dirs.keys()
            or self.skipped != known.skipped
        )


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Attributes:
        clean: nothing may differ: the state is that of the tracker's root, for sure.
        candidates: how many names and directories have to be read to know.
        entries: how many names were looked at.
        started_ns: ``time.time_ns`` when it began; changes after that belong to the next scan.
        not_captured: path and reason, in path order.
        scan_ms: how long it took.
        seen: the directories to capture.
        generation: of the tracker's index; a capture refuses a scan of another one.
        watched: only suspects were looked at.
        mounts: mount points below the workspace, relative to it.
    """

    clean: bool
    candidates: int
    entries: int
    started_ns: int
    not_captured: tuple[tuple[bytes, str], ...]
    scan_ms: float
    seen: tuple[Seen, ...]
    generation: int
    watched: bool = False
    mounts: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Limits:
    """When a workspace is too big to be protected without being asked twice."""

    files: int
    bytes: int


class Suspects(msgspec.Struct, frozen=True):
    """Where something may have changed, by the word of somebody who watches.

    Attributes:
        places: by directory (relative path; empty for the workspace itself), names in it. The empty
            name is the directory's own mode, owner and extended attributes.
        subtrees: directories to be looked at whole.
        inodes: (device, inode) of files whose names in the index may all have changed.
        mapped: the same of files that have to be read, whatever their stamps say.
    """

    places: Mapping[bytes, frozenset[bytes]] = {}
    subtrees: frozenset[bytes] = frozenset()
    inodes: frozenset[tuple[int, int]] = frozenset()
    mapped: frozenset[tuple[int, int]] = frozenset()

    def joined(self, other: Suspects) -> Suspects:
        """The suspects of both."""
        places = dict(self.places)
        for path, names in other.places.items():
            places[path] = places.get(path, frozenset()) | names
        return Suspects(
            places,
            self.subtrees | other.subtrees,
            self.inodes | other.inodes,
            self.mapped | other.mapped,
        )
