"""The same work done by plain calls: what nobody can do it for less than on this machine, now."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from crabrt.bench.harness import settle, timed

_APPEND = bytes(range(256)) * 32  # 8 KiB: about what a small turn's pack and journal records take
_FICLONE = 0x40049409  # _IOW(0x94, 9, int) of linux/fs.h


class TwoLogs:
    """Two files appended to and made durable in turn: what a pack and a journal cannot avoid."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._paths = (directory / "a", directory / "b")
        self._append()  # the first append also makes the files

    def append_ms(self) -> float:
        """How long it takes to append 8 KiB to each and fdatasync each."""
        return timed(self._append)[0]

    def _append(self) -> None:
        fds = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for path in self._paths]
        try:
            for fd in fds:
                os.write(fd, _APPEND)
                os.fdatasync(fd)
        finally:
            for fd in fds:
                os.close(fd)


def read_ms(path: Path, names: Iterable[str]) -> float:
    """How long it takes to open, stat and read these files."""
    full = [os.fsencode(path / name) for name in names]

    def read() -> None:
        for name in full:
            fd = os.open(name, os.O_RDONLY)
            size = os.fstat(fd).st_size
            while size > 0:
                size -= len(os.read(fd, min(size, 4 << 20)) or b"x" * size)
            os.close(fd)

    return timed(read)[0]


def replace_ms(path: Path, contents: Mapping[str, bytes]) -> float:
    """How long it takes to replace these files by temporary name and rename, and sync once."""

    def replace() -> None:
        for name, data in contents.items():
            full = os.fsencode(path / name)
            temp = full + b".bench"
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, data)
            os.close(fd)
            os.rename(temp, full)
        settle(path)

    return timed(replace)[0]


def copy_ms(tree: Path, names: Iterable[str], target: Path) -> float:
    """How long it takes to read these files, write them in another directory, and sync once."""
    listed = list(names)

    def copy() -> None:
        made = set()
        for name in listed:
            to = target / name
            if to.parent not in made:
                to.parent.mkdir(parents=True, exist_ok=True)
                made.add(to.parent)
            shutil.copyfile(tree / name, to)
        settle(target)

    return timed(copy)[0]


def can_reflink(directory: Path) -> bool:
    """Whether files in `directory` can share their blocks."""
    source, target = directory / "reflink-a", directory / "reflink-b"
    source.write_bytes(_APPEND)
    try:
        with open(source, "rb") as a, open(target, "wb") as b:
            fcntl.ioctl(b, _FICLONE, a.fileno())
    except OSError:
        return False
    else:
        return True
    finally:
        source.unlink()
        target.unlink()
