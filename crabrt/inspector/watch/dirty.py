"""What a watch reports: where something may have changed since it was asked last.

It says where to look, never what is there: a name may be back to what it was, or be gone. What it
leaves out did not change, with the exceptions that `Dirty` names.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

SELF = b""
"""Stands for the directory itself among the names in it."""


class Dirty(msgspec.Struct, frozen=True):
    """Where something happened in a workspace since the last `Watch.drain`.

    Every reported change of state lies at one of `places`, in one of `subtrees`, or in a name of
    one of `inodes`; or `unknown` says why that cannot be promised. What no event reports is in
    `Holders`.

    Attributes:
        places: by directory (relative path, the workspace itself is ``b""``), names in it about
            which something was reported; `SELF`: the directory's own mode, owner or attributes. A
            directory that is not known must be found from the nearest one above it that is.
        subtrees: directories to be looked at whole: new ones, moved ones, and those below which
            something happened at an unknown place. None lies in another.
        inodes: (device, inode) of objects that changed and may have other names than those in
            `places`: hard links, files renamed while open. Every name the index has for such an
            inode may have changed; names it does not have yet are in `places` or `subtrees`.
        unknown: why only an exact scan will do; then the rest is empty.
        foreign: by process id, some paths written by processes that do not belong to the run, as
            far as the kernel tells. Evidence: what is absent here need not be the run's.
        events: how many were read from the kernel meanwhile, for all who share the group.
    """

    places: dict[bytes, frozenset[bytes]] = {}
    subtrees: frozenset[bytes] = frozenset()
    inodes: frozenset[tuple[int, int]] = frozenset()
    unknown: str | None = None
    foreign: dict[int, frozenset[bytes]] = {}
    events: int = 0

    @property
    def clean(self) -> bool:
        """Nothing at all was reported."""
        return not (self.places or self.subtrees or self.inodes or self.unknown)


class Held(msgspec.Struct, frozen=True):
    """A file that can change without an event, because somebody may write into it.

    Attributes:
        device, inode: of the file.
        path: its only name, relative to the workspace; None if it has several or none is sure: then
            every name that the index has for the inode is meant.
        mapped: through a shared mapping: stat proves nothing, it has to be read. Else it is open
            for writing: stat tells.
    """

    device: int
    inode: int
    path: bytes | None
    mapped: bool


class Holders(msgspec.Struct, frozen=True):
    """What live processes hold in a way that no event reports when they use it.

    Attributes:
        files: in the workspace, or perhaps in it.
        unseen: how many processes could not be looked at.
    """

    files: tuple[Held, ...] = ()
    unseen: int = 0


class Watch(Protocol):
    """Reports on one workspace from the moment it was opened. Safe to use from several threads.

    To know all that may have changed: `holders` first, then `drain`. Who lets go of a file between
    the two is reported by the drain, as closing is an event.
    """

    def drain(self) -> Dirty:
        """Everything that happened before this call and was not reported by an earlier one.

        Never raises for what goes wrong with watching: that is `Dirty.unknown`.
        """
        ...

    def peek(self) -> Dirty:
        """As `drain`, but what is under way may be left to a later call: for who is in no hurry.

        It waits for nothing, so it never says unknown for a removal that is not reported yet.
        """
        ...

    def holders(self) -> Holders:
        """Which files may be stored into just now. Never raises: what is not seen is counted."""
        ...

    def close(self) -> None:
        """Stop watching. Harmless when done twice, and in a forked child."""
        ...
