"""Questions put to the kernel by trying: what works here, not what a version number promises.

Each probe leaves nothing behind: unnamed temporary files, descriptors closed at once, children that
end.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crabrt.workspace.procfs import mounts

_FICLONE = 0x40049409
_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
_LANDLOCK_VERSION_FLAG = 1
_CHILD_LIMIT_S = 10
_TICK_LIMIT_S = 0.05

_CAPABILITIES = {
    "CAP_CHOWN": 0, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21, "CAP_CHECKPOINT_RESTORE": 40,
}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """The answer of a probe: whether it works, and what was seen."""

    works: bool
    seen: str


@dataclass(frozen=True)
class FileSystem:
    """The file system under a path: its type, where it is mounted, and its free bytes."""

    kind: str
    mounted_at: str
    free_bytes: int
    total_bytes: int


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def landlock() -> Probe:
    """Whether the kernel has Landlock, and of which ABI."""
    version = _libc().syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET),
        ctypes.c_void_p(None),
        ctypes.c_size_t(0),
        ctypes.c_uint32(_LANDLOCK_VERSION_FLAG),
    )
    if version < 0:
        return Probe(works=False, seen=_errno_text())
    return Probe(works=True, seen=f"ABI {version}")


def user_namespaces() -> Probe:
    """Whether a process can make a user and a mount namespace (tried in a child)."""
    clone_newuser, clone_newns = 0x10000000, 0x00020000
    program = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
        f"raise SystemExit(ctypes.get_errno() if c.unshare({clone_newuser | clone_newns}) else 0)"
    )
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHILD_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Probe(works=False, seen=f"could not be tried: {error}")
    if child.returncode == 0:
        return Probe(works=True, seen="user and mount namespaces can be made")
    return Probe(works=False, seen=os.strerror(child.returncode))


def capabilities() -> frozenset[str]:
    """The effective capabilities of this process, of those that matter here."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError):
        return frozenset()
    return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)


def file_system(path: Path) -> FileSystem:
    """What `path` lies on.

    Raises:
        OSError: it cannot be looked at.
    """
    device = os.stat(path).st_dev
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    real = os.fsencode(os.path.realpath(path))
    kind, mounted_at, best = "unknown", "", (False, -1)
    for mount in mounts():
        inside = (real + b"/").startswith(mount.point.rstrip(b"/") + b"/")
        # btrfs subvolumes have devices that mountinfo does not list: the path decides then
        rank = (mount.device == wanted, len(mount.point))
        if inside and rank >= best:
            kind, mounted_at, best = os.fsdecode(mount.kind), os.fsdecode(mount.point), rank
    space = os.statvfs(path)
    return FileSystem(
        kind, mounted_at, space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    )


def reflink(directory: Path) -> Probe:
    """Whether files in `directory` can share blocks (tried with two unnamed files)."""
    try:
        with _unnamed(directory) as source, _unnamed(directory) as clone:
            source.write(b"crab" * 1024)
            fcntl.ioctl(clone.fileno(), _FICLONE, source.fileno())
    except OSError as error:
        expected = error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV)
        return Probe(works=False, seen="not supported" if expected else str(error.strerror))
    return Probe(works=True, seen="files can share blocks")


def writable(directory: Path) -> Probe:
    """Whether a file can be made, written and synced in `directory` (an unnamed one)."""
    try:
        with _unnamed(directory) as file:
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
    except OSError as error:
        return Probe(works=False, seen=str(error.strerror))
    return Probe(works=True, seen="yes")


def time_step_ns(directory: Path) -> int | None:
    """The smallest step between two modification times of a file there; None if it cannot be seen.

    Two writes within one step cannot be told apart by time: a scan re-reads files that young.
    """
    smallest: int | None = None
    try:
        with _unnamed(directory) as file:
            last = os.fstat(file.fileno()).st_mtime_ns
            deadline = time.monotonic() + _TICK_LIMIT_S
            while time.monotonic() < deadline:
                os.pwrite(file.fileno(), b"x", 0)
                now = os.fstat(file.fileno()).st_mtime_ns
                if now > last:
                    smallest = now - last if smallest is None else min(smallest, now - last)
                    last = now
    except OSError:
        return smallest
    return smallest


def _unnamed(directory: Path) -> IO[bytes]:
    """A file without a name (``O_TMPFILE``; where that is missing, made and unlinked at once)."""
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def _errno_text() -> str:
    return os.strerror(ctypes.get_errno())
