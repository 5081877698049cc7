"""A model of power loss: what a disk may hold afterwards, given what was synced before.

`PowerCut` watches ``os.fsync`` and ``os.fdatasync`` under one directory while a scenario runs, and
keeps for every file the bytes that its last sync covered, and for every directory the names. What a
power cut may leave is then: of each file at least those bytes and perhaps some of what was written
after, ending anywhere, its last sectors perhaps garbage; and, where the directory was not synced,
new names perhaps missing. The model is for files that grow at their end. One that was rewritten in
place, or through ``rename``, is left either as it was synced or as it is.

Code that syncs past Python (SQLite) is not seen: its files count as never synced.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

SECTOR_BYTES = 512

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


class Syncer(Protocol):
    """``os.fsync`` or ``os.fdatasync``."""

    def __call__(self, fd: FileDescriptorLike) -> None:
        """Make what was written to `fd` durable."""
        ...


@dataclass(frozen=True)
class _Who:
    """A file or directory, whatever its name."""

    device: int
    inode: int

    @classmethod
    def of(cls, info: os.stat_result) -> _Who:
        return cls(info.st_dev, info.st_ino)


@dataclass(frozen=True)
class Cut:
    """One possible disk after a power cut.

    Attributes:
        seed: what it was drawn from.
        lost: what differs from the disk as it was, a phrase for each file or name.
    """

    seed: int
    lost: tuple[str, ...]


@dataclass
class PowerCut:
    """Watch the syncs under `directory` (as a context manager), then draw what a cut may leave.

    Attributes:
        directory: absolute path; what lies there before is taken as durable.
        syncs: how many were seen.
    """

    directory: str
    syncs: int = 0
    _bytes: dict[_Who, bytes] = field(default_factory=dict)
    _names: dict[_Who, dict[str, _Who]] = field(default_factory=dict)
    _real: tuple[Syncer, Syncer] | None = None

    def __enter__(self) -> Self:
        self.directory = os.path.realpath(self.directory)
        for path, _, files in os.walk(self.directory):
            self._keep_names(path)
            for name in files:
                self._keep_bytes(os.path.join(path, name))
        fsync, fdatasync = self._real = (os.fsync, os.fdatasync)
        os.fsync = self._watching(fsync)
        os.fdatasync = self._watching(fdatasync)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        assert self._real is not None
        os.fsync, os.fdatasync = self._real

    def _watching(self, real: Syncer) -> Syncer:
        def sync(fd: FileDescriptorLike) -> None:
            real(fd)
            handle = fd if isinstance(fd, int) else fd.fileno()
            path = os.readlink(f"/proc/self/fd/{handle}").removesuffix(" (deleted)")
            if path == self.directory or path.startswith(self.directory + "/"):
                self.syncs += 1
                if stat.S_ISDIR(os.fstat(handle).st_mode):
                    self._keep_names(path)
                elif os.path.exists(path):
                    self._keep_bytes(path)

        return sync

    def _keep_bytes(self, path: str) -> None:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if stat.S_ISREG(info.st_mode):
                self._bytes[_Who.of(info)] = file.read()

    def _keep_names(self, path: str) -> None:
        self._names[_Who.of(os.stat(path))] = {
            name: _Who.of(os.lstat(os.path.join(path, name))) for name in os.listdir(path)
        }

    def draw(self, seed: int, into: str, *, lose_names: bool = False) -> Cut:
        """Write one possible disk into the directory `into` (made anew).

        Args:
            seed: which one.
            into: replaced if it is there.
            lose_names: whether names that no directory sync covered may be missing, too. Linux file
                systems often keep them; nothing promises it.
        """
        shutil.rmtree(into, ignore_errors=True)
        lost: list[str] = []
        self._draw_directory(self.directory, into, random.Random(seed), lost, lose_names=lose_names)
        return Cut(seed, tuple(lost))

    def each(self, count: int, into: str, *, lose_names: bool = False) -> Iterator[Cut]:
        """Draw `count` disks, one after the other, into the same directory."""
        for seed in range(count):
            yield self.draw(seed, into, lose_names=lose_names)

    def _draw_directory(
        self, source: str, target: str, rng: random.Random, lost: list[str], *, lose_names: bool
    ) -> None:
        os.mkdir(target, stat.S_IMODE(os.stat(source).st_mode))
        durable = self._names.get(_Who.of(os.stat(source)), {})
        for name in sorted(os.listdir(source)):
            path, copy = os.path.join(source, name), os.path.join(target, name)
            info = os.lstat(path)
            shown = os.path.relpath(path, self.directory)
            if lose_names and durable.get(name) != _Who.of(info) and rng.random() < 0.5:
                self._draw_old_name(durable.get(name), copy, shown, lost)
            elif stat.S_ISDIR(info.st_mode):
                self._draw_directory(path, copy, rng, lost, lose_names=lose_names)
            elif stat.S_ISREG(info.st_mode):
                self._draw_file(path, copy, shown, rng, lost)
            else:
                shutil.copy2(path, copy, follow_symlinks=False)

    def _draw_old_name(self, was: _Who | None, copy: str, shown: str, lost: list[str]) -> None:
        """The name is not there, or leads to what it led to when its directory was synced."""
        if was is not None and was in self._bytes:
            _write(copy, self._bytes[was])
            lost.append(f"{shown}: the rename over it")
        else:
            lost.append(f"{shown}: the name")

    def _draw_file(
        self, path: str, copy: str, shown: str, rng: random.Random, lost: list[str]
    ) -> None:
        with open(path, "rb") as file:
            now = file.read()
            synced = self._bytes.get(_Who.of(os.fstat(file.fileno())), b"")
        if not now.startswith(synced):
            kept = rng.choice((synced, now))
        elif now == synced or rng.random() < 0.2:
            kept = now
        else:
            kept = _tear(now, len(synced), rng)
        if kept != now:
            lost.append(f"{shown}: {len(kept)} of {len(now)} bytes left, {len(synced)} were synced")
        _write(copy, kept)
        os.chmod(copy, stat.S_IMODE(os.stat(path).st_mode))


def _tear(data: bytes, synced: int, rng: random.Random) -> bytes:
    """`data` cut anywhere after `synced`; perhaps longer than it was written, perhaps garbled."""
    end = rng.randint(synced, len(data))
    how = rng.choice(("cut", "zeros", "garbage", "sectors"))
    if how == "cut" or end == len(data):
        return data[:end]
    if how == "zeros":  # the size was written, the blocks were not
        return data[:end] + bytes(len(data) - end)
    if how == "garbage":  # the blocks hold what they held before
        return data[:end] + rng.randbytes(len(data) - end)
    torn = bytearray(data)  # sectors are written in any order
    for start in range(synced - synced % SECTOR_BYTES, len(data), SECTOR_BYTES):
        if rng.random() < 0.5:
            first, last = max(start, synced), min(start + SECTOR_BYTES, len(data))
            torn[first:last] = bytes(last - first)
    return bytes(torn)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
