"""What an operation holds: the tree, the run's randomness, and helpers to pick and name things.

Every choice is drawn from the turn's generator over sorted listings, so that the same seed does the
same things. Choices never depend on times, inode numbers, or what runs beside.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from crabrt.testing.hostile.holder import Holder

TREE_BYTES = 5 << 20
"""The tree stays below this, so that an oracle can digest it before and after every turn."""

TREE_NAMES = 400
_PATH_BYTES = 3_500  # what paths are used whole; deeper ones are reached by descriptors only
_UNSUPPORTED = {
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EPERM,
    errno.EXDEV,
    errno.ENOTTY,
    errno.EMLINK,
    errno.ENOSPC,  # of xattrs: the block of an inode is small
}

_WORDS = (b"src", b"lib", b"test", b"main", b"util", b"data", b"core", b"doc", b"log", b"conf")
_ENDINGS = (b"", b".py", b".c", b".txt", b".json", b".bin", b".lock", b"~")


class NotApplicable(Exception):
    """The operation has nothing to act on in this tree, or this file system cannot do it."""


class Unsupported(NotApplicable):
    """This kernel or file system cannot do it; the errno is in the message."""


@dataclass(frozen=True)
class Operation:
    """One way to change a tree, or to seem to.

    Attributes:
        name: a phrase, unique.
        act: does it, and tells what it did to what.
        undone: the net change is nothing.
        weight: how often it is drawn, beside the others.
    """

    name: str
    act: Callable[[Hand], str]
    undone: bool = False
    weight: int = 1


OPERATIONS: dict[str, Operation] = {}
"""Every operation by name."""


def operation(
    name: str, *, undone: bool = False, weight: int = 1
) -> Callable[[Callable[[Hand], str]], Callable[[Hand], str]]:
    """Declare an operation."""

    def declare(act: Callable[[Hand], str]) -> Callable[[Hand], str]:
        if name in OPERATIONS:
            raise ValueError(f"operation {name!r} is declared twice")
        OPERATIONS[name] = Operation(name, act, undone, weight)
        return act

    return declare


@contextmanager
def where_supported() -> Iterator[None]:
    """Turn "this file system cannot" into `Unsupported`; every other error stays one."""
    try:
        yield
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise Unsupported(str(error)) from error
        raise


@dataclass
class Hand:
    """The tree as an operation sees it.

    Attributes:
        root: absolute path of the tree.
        outside: a directory of the same file system that is not part of the tree, or None.
        rng: this turn's randomness.
        turn: its number.
        held: live processes that hold a file, by its path. Nothing else picks these paths, so
            that a later store by the holder surely lands in the tree.
        made: how many names were made up.
    """

    root: bytes
    outside: bytes | None
    rng: random.Random
    turn: int = 0
    held: dict[bytes, Holder] = field(default_factory=dict)
    made: int = 0

    def at(self, path: bytes) -> bytes:
        """The absolute path of `path`."""
        return os.path.join(self.root, path) if path else self.root

    def listing(self) -> list[tuple[bytes, int]]:
        """(path, type bits) of everything that whole paths reach, sorted."""
        found: list[tuple[bytes, int]] = []
        todo = [b""]
        while todo:
            above = todo.pop()
            with os.scandir(self.at(above)) as entries:
                for entry in entries:
                    path = os.path.join(above, entry.name)
                    kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                    if len(path) < _PATH_BYTES:
                        found.append((path, kind))
                        if kind == stat.S_IFDIR:
                            todo.append(path)
        return sorted(found)

    def paths(self, kind: int) -> list[bytes]:
        """Paths of that type that no holder uses."""
        return [path for path, its in self.listing() if its == kind and not self.is_busy(path)]

    def is_busy(self, path: bytes) -> bool:
        """Whether a holder uses it or something below it."""
        return any(used == path or used.startswith(path + b"/") for used in self.held)

    def pick(self, among: list[bytes]) -> bytes:
        """One of them.

        Raises:
            NotApplicable: there is none.
        """
        if not among:
            raise NotApplicable("nothing to pick from")
        return self.rng.choice(among)

    def a_file(self, at_least: int = 0) -> bytes:
        """A regular file of at least so many bytes."""
        return self.pick(
            [p for p in self.paths(stat.S_IFREG) if os.stat(self.at(p)).st_size >= at_least]
        )

    def a_plain_file(self, at_least: int = 0) -> bytes:
        """One that a write leaves with all it has: no setuid bits and no capabilities to drop."""
        return self.pick(
            [
                path
                for path in self.paths(stat.S_IFREG)
                if (info := os.stat(self.at(path))).st_size >= at_least
                and not info.st_mode & (stat.S_ISUID | stat.S_ISGID)
                and "security.capability" not in os.listxattr(self.at(path))
            ]
        )

    def a_dir(self) -> bytes:
        """A directory, the root included."""
        return self.pick([b"", *self.paths(stat.S_IFDIR)])

    def a_subdir(self) -> bytes:
        """A directory that is not the root."""
        return self.pick(self.paths(stat.S_IFDIR))

    def new_path(self, name: bytes | None = None) -> bytes:
        """A path that is not there yet, in some directory.

        Raises:
            NotApplicable: the tree has enough names.
        """
        if len(self.listing()) >= TREE_NAMES:
            raise NotApplicable("the tree has names enough")
        if name is None:
            self.made += 1
            word = self.rng.choice(_WORDS)
            name = b"%s-%d.%d%s" % (word, self.turn, self.made, self.rng.choice(_ENDINGS))
        path = os.path.join(self.a_dir(), name)
        if os.path.lexists(self.at(path)):
            raise NotApplicable("the name is taken")
        return path

    def room(self) -> int:
        """How many bytes the tree may still grow by."""
        sizes = (
            os.lstat(self.at(path)).st_size for path, kind in self.listing() if kind == stat.S_IFREG
        )
        return TREE_BYTES - sum(sizes)

    def some_bytes(self, most: int = 16_384) -> bytes:
        """Up to `most` bytes, text or noise; within the room that is left.

        Raises:
            NotApplicable: the tree is full.
        """
        size = self.rng.randint(1, most)
        if size > self.room():
            raise NotApplicable("the tree is full")
        if self.rng.random() < 0.5:
            return self.rng.randbytes(size)
        line = b"%d = %s\n" % (self.rng.randrange(1 << 30), self.rng.choice(_WORDS))
        return (line * (size // len(line) + 1))[:size]

    def sizes(self) -> int:
        """Mostly small, sometimes past where large files begin to be cut."""
        return self.rng.choice((200, 2_000, 16_384, 16_384, 70_000, 600_000))


@contextmanager
def times_kept(path: bytes) -> Iterator[os.stat_result]:
    """Set both times of `path` back to what they were, to the nanosecond."""
    info = os.lstat(path)
    yield info
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
