"""Which files a process holds, and in what condition: an image of it is of these, as they are.

A process that sleeps does not notice that a file it has open or mapped changes. An image of it
does: it would meet other bytes when it comes back.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from crabrt.core.processes import FileHeld
from crabrt.process.beside import whose
from crabrt.workspace.procfs import read

_MATCHED_MOST: Final = 4096
"""A tree that holds more files is compared by so many of them."""
_NO_FILES: Final = (b"/proc/", b"/sys/", b"/memfd:", b"/SYSV", b"/[")
_DELETED: Final = b" (deleted)"
_READS, _WRITES = 1, 2


class HeldFile(NamedTuple):
    """A regular file at one moment.

    Attributes:
        path: as the kernel knows it; `` (deleted)`` behind it if it has no name any more.
        device, inode, size, modified_ns, changed_ns: as stat tells.
    """

    path: bytes
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def held_files(pid: int) -> frozenset[HeldFile]:
    """All that `pid` has open or mapped.

    Raises:
        OSError: it is no more, or may not be looked at.
    """
    found = set()
    opened = b"/proc/%d/fd" % pid
    for name in os.listdir(opened):
        held = _file(opened + b"/" + name)
        if held is not None:
            found.add(held)
    for path in _mapped(pid):
        held = _file(path)
        if held is not None:
            found.add(held)
    return frozenset(found)


def written_files(pid: int) -> frozenset[bytes]:
    """The absolute paths of the regular files that `pid` has open for writing; none if it ended."""
    found = set()
    opened = b"/proc/%d/fd" % pid
    with contextlib.suppress(OSError):
        for name in os.listdir(opened):
            link = opened + b"/" + name
            with contextlib.suppress(OSError):
                # The link's own mode tells how the file was opened.
                if os.lstat(link).st_mode & stat.S_IWUSR and stat.S_ISREG(os.stat(link).st_mode):
                    found.add(os.readlink(link))
    return frozenset(found)


def files_to_match(pids: Iterable[int], workspace: bytes) -> tuple[FileHeld, ...]:
    """The files that have to be as they are now if an image of these processes comes back.

    In the workspace, all that they have open or mapped: their tools change that. Elsewhere what
    they may write, by a descriptor or through a mapping; so no programs and libraries. Not among
    them: what has no name any more, as its bytes are in the image, and what has another name here.

    Args:
        pids: of the processes of one tree, which stand still; who ended holds nothing.
        workspace: an absolute path, as this process has it; empty: there is none.
    """
    below = workspace.rstrip(b"/") + b"/" if workspace else b""
    links: dict[bytes, bytes] = {}
    access: dict[bytes, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            places = whose.other_paths(pid, workspace) if below else ()
            for link, seen, how in (*_descriptors(pid), *_mappings(pid)):
                path = whose.moved_here(seen, places, workspace)
                links.setdefault(path, link)
                access[path] = access.get(path, 0) | how
    found: list[FileHeld] = []
    for path, how in sorted(access.items()):
        is_inside = bool(below) and path.startswith(below)
        if len(found) < _MATCHED_MOST and (is_inside or how & _WRITES):
            with contextlib.suppress(OSError):  # gone, or not visible from here
                there, now = os.stat(links[path]), os.stat(path, follow_symlinks=False)
                if stat.S_ISREG(now.st_mode) and os.path.samestat(there, now):
                    only = how == _WRITES
                    found.append(FileHeld(path, now.st_size, now.st_mtime_ns, only))
    return tuple(found)


def _descriptors(pid: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Of each descriptor of a file: a link to that, its path, and how it was opened."""
    opened = b"/proc/%d/fd" % pid
    for name in os.listdir(opened):
        link = opened + b"/" + name
        with contextlib.suppress(OSError):  # closed
            path = os.readlink(link)
            if _has_name(path):
                mode = os.lstat(link).st_mode  # the link's own tells how the file was opened
                reads, writes = mode & stat.S_IRUSR, mode & stat.S_IWUSR
                yield link, path, (_READS if reads else 0) | (_WRITES if writes else 0)


def _mappings(pid: int) -> Iterator[tuple[bytes, bytes, int]]:
    """The same of mapped files. What is mapped is read; what is written is so if it is shared."""
    for line in read(b"/proc/%d/maps" % pid).splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4] != b"0" and _has_name(fields[5]):
            shared = b"w" in fields[1] and fields[1].endswith(b"s")
            yield _map_link(pid, fields[0]), fields[5], _READS | (_WRITES if shared else 0)


def _has_name(path: bytes) -> bool:
    return path.startswith(b"/") and not path.startswith(_NO_FILES) and not path.endswith(_DELETED)


def _file(link: bytes) -> HeldFile | None:
    """What `link` leads to; None if that is no regular file, or is gone."""
    try:
        there = os.stat(link)
        if not stat.S_ISREG(there.st_mode):
            return None
        path = os.readlink(link)
    except OSError:
        return None
    return HeldFile(
        path, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns
    )


def _mapped(pid: int) -> list[bytes]:
    """A link to each mapped file: one of its mappings."""
    one_of: dict[bytes, bytes] = {}
    for line in read(b"/proc/%d/maps" % pid).splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4] != b"0" and fields[5].startswith(b"/"):
            one_of.setdefault(fields[3] + fields[4], _map_link(pid, fields[0]))
    return list(one_of.values())


def _map_link(pid: int, span: bytes) -> bytes:
    """The link to what is mapped at `span`, a field of ``/proc/PID/maps``."""
    begin, _, end = span.partition(b"-")
    return b"/proc/%d/map_files/%s-%s" % (pid, begin.lstrip(b"0") or b"0", end.lstrip(b"0"))
