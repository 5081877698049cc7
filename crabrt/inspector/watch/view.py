"""Where a file system can be seen whole: the mount through which handles become paths.

A handle says nothing of names; opened through a mount, it is a path in that mount. Several
workspaces can share one group only if their paths are comparable, so they all look through a mount
of the file system's own root. Where a container shows a part of it only, that part is the view, and
the group is shared among those who see the same part.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from crabrt.inspector.watch.errors import Reason, Unwatchable
from crabrt.workspace.dirfd import open_directory
from crabrt.workspace.procfs import Mount, mounts


@dataclass(frozen=True)
class View:
    """A directory to resolve handles through.

    Attributes:
        fd: a descriptor in the mount; the taker closes it.
        key: equal for all who can share: names the file system and the part of it that is seen.
    """

    fd: int
    key: str


def view_of(workspace_fd: int) -> View:
    """The best view of the file system that the directory `workspace_fd` is on.

    Raises:
        Unwatchable: it cannot be told where it is mounted.
    """
    try:
        known = mounts()
        own_id = mount_id(workspace_fd)
    except (OSError, ValueError, IndexError) as error:
        raise Unwatchable(f"/proc does not tell mounts: {error}", Reason.KERNEL) from error
    own = next((mount for mount in known if mount.id == own_id), None)
    if own is None:
        raise Unwatchable("the workspace's mount is not in /proc", Reason.FILE_SYSTEM)
    device = own.device.decode().replace(":", "-")
    for mount in [own, *known]:
        if mount.device == own.device and mount.root == b"/":
            fd = _open(mount)
            if fd is not None:
                return View(fd, device)
    if own.root == b"/":  # its root is hidden by another mount
        return View(os.dup(workspace_fd), device)
    part = hashlib.blake2b(own.root, digest_size=8).hexdigest()
    return View(os.dup(workspace_fd), f"{device}-{part}")


def mount_id(fd: int) -> int:
    """The number of the mount that `fd` was opened in."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise ValueError("no mnt_id in fdinfo")


def _open(mount: Mount) -> int | None:
    """A descriptor in `mount`; None if another one hides it, or it cannot be opened."""
    try:
        fd = open_directory(mount.point)
    except OSError:
        return None
    if mount_id(fd) != mount.id:
        os.close(fd)
        return None
    return fd
