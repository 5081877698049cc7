"""What a process holds, as a checkpoint tells it: files of the workspace, and ends of sockets.

Asked for who ran since it was last looked at: one pass over its descriptors, one over its mappings,
one over the tables of its network.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from crabrt.process import sockets
from crabrt.process.beside import whose
from crabrt.workspace.procfs import read

LISTED_MOST: Final = 64
"""So many files, and as many connections, are told of a process by name."""

_SOCKET: Final = b"socket:["
_DELETED: Final = b" (deleted)"


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a process holds.

    Attributes:
        listens: where it waits for others, as `sockets.listening_sockets` tells it.
        files: of the workspace that it has open or mapped, relative to it, raw bytes; those that
            are open first.
        connections: the other ends of its connections, but for those within its tree.
        unlisted: how many files and connections there are beside these.
    """

    listens: tuple[str, ...] = ()
    files: tuple[bytes, ...] = ()
    connections: tuple[str, ...] = ()
    unlisted: int = 0


def belongings(
    pid: int, workspace: bytes, kin: Callable[[], Collection[int]] = frozenset
) -> Belongings:
    """What `pid` holds; nothing if it has ended, or may not be looked at.

    Args:
        pid: a process.
        workspace: an absolute path, as this process has it; empty: no file is told.
        kin: gives the sockets (inodes) of its tree. Asked only if the other end of a connection is
            on this machine.
    """
    links = _links(pid)
    inodes = {int(link[len(_SOCKET) : -1]) for link, _ in links if link.startswith(_SOCKET)}
    listens, connections = sockets.ends(pid, inodes) if inodes else ({}, [])
    far = {text: None for text, other in connections if not other or other not in kin()}
    files = dict.fromkeys(_files(pid, links, workspace) if workspace else ())
    return Belongings(
        tuple(sorted(listens.values())),
        tuple(files)[:LISTED_MOST],
        tuple(far)[:LISTED_MOST],
        max(0, len(files) - LISTED_MOST) + max(0, len(far) - LISTED_MOST),
    )


def _links(pid: int) -> list[tuple[bytes, bytes]]:
    """What each descriptor leads to, and where ``/proc`` shows it."""
    found = []
    opened = b"/proc/%d/fd" % pid
    with contextlib.suppress(OSError):
        for name in os.listdir(opened):
            with contextlib.suppress(OSError):  # closed meanwhile
                found.append((os.readlink(opened + b"/" + name), opened + b"/" + name))
    return found


def _files(pid: int, links: Iterable[tuple[bytes, bytes]], workspace: bytes) -> Iterator[bytes]:
    places = (workspace, *whose.other_paths(pid, workspace))
    for link, at in links:
        path = _inside(link, places)
        with contextlib.suppress(OSError):  # closed meanwhile
            if path and stat.S_ISREG(os.stat(at).st_mode):
                yield path
    with contextlib.suppress(OSError):  # it ended
        maps = read(b"/proc/%d/maps" % pid)
        if any(place in maps for place in places):
            for line in maps.splitlines():
                words = line.split(None, 5)
                path = _inside(words[5].replace(rb"\012", b"\n"), places) if words[5:] else b""
                if path:
                    yield path


def _inside(path: bytes, places: Iterable[bytes]) -> bytes:
    """A path of the workspace, relative to it; empty if it is none, or has no name any more."""
    for place in places:
        above = place.rstrip(b"/") + b"/"
        if path.startswith(above) and not path.endswith(_DELETED):
            return path[len(above) :]
    return b""
