"""Which files of the workspace can change without an event, because they are held for writing.

The kernel reports writing, not holding. A store through a shared mapping is no event, nor is a
write by Linux AIO or by a loop device, until the file is closed. Whoever can do that holds the file
meanwhile, so holders are looked for.
"""

from __future__ import annotations

import os

from crabrt.inspector.watch.dirty import Held, Holders
from crabrt.inspector.watch.grips import Grip, Grips
from crabrt.inspector.watch.kernel import handle_of
from crabrt.inspector.watch.places import Found, Places
from crabrt.workspace.mappings import EverWritable


class Holding:
    """Looks for holders of the files of one workspace. Used by one thread at a time.

    Args:
        fd: the workspace's directory; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._places = Places(fd)
        self._grips = Grips(os.fstat(fd).st_dev)
        self._paths: dict[tuple[int, int], bytes] = {}

    def look(self) -> Holders:
        """See `Watch.holders`."""
        try:
            top = os.readlink(b"/proc/self/fd/%d" % self._fd)
            grips = self._grips.look()
        except OSError:
            return Holders(unseen=1)
        below = top.rstrip(b"/") + b"/"
        places: dict[tuple[int, int], Found | None] = {}  # one file is often held by several
        files: dict[tuple[int, int], Held] = {}
        written = EverWritable()
        for grip in sorted(grips, key=lambda grip: grip.mapping is not None):  # which says more
            key = (grip.device, grip.inode)
            if key not in places:
                places[key] = self._find(grip)
            found = places[key]
            if found is None:
                continue
            relative = None
            if found.path is not None:
                if not found.path.startswith(below):
                    continue
                relative = found.path[len(below) :]
            if grip.mapping is None or grip.mapping in written:
                files[key] = Held(*key, relative, grip.mapping is not None)
        self._paths = {
            key: found.path for key, found in places.items() if found is not None and found.path
        }
        return Holders(tuple(files.values()), self._grips.unseen)

    def _find(self, grip: Grip) -> Found | None:
        """Where the file is; None if it has no name any more."""
        key = (grip.device, grip.inode)
        before = self._paths.get(key)
        if before is not None and _is_at(before, key):
            return Found(*key, before)
        try:
            fd = os.open(grip.link, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return Found(*key, None)
        try:
            return self._places.find(handle_of(fd))
        except OSError:
            return Found(*key, None)
        finally:
            os.close(fd)


def _is_at(path: bytes, key: tuple[int, int]) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == key and status.st_nlink == 1
