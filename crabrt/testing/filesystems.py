"""Real file systems to test on: the temporary directory's, tmpfs; XFS, btrfs, ext4, overlay, FUSE.

The last is one in user space, of which this kernel knows as little as of a network's. Each has its
own idea of times, inode numbers and devices, so what is claimed of files is proved on all of them.
Loop devices and mounts need root; nothing here is faked where they are missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOP_KINDS = ("xfs", "btrfs", "ext4")
"""Made in an image file and mounted through a loop device."""

LOCAL_KINDS = ("here", "tmpfs", *LOOP_KINDS, "overlay")
"""Whose every change this kernel makes. ``here`` is the temporary directory's own file system."""

WATCHED_KINDS = ("here", "tmpfs", *LOOP_KINDS)
"""Those that fanotify can tell everything of (``here``: if it is one like the others)."""

KINDS = (*LOCAL_KINDS, "fuse")
"""All: on FUSE, ``here`` lies below."""

_IMAGE_BYTES = 320 << 20  # the smallest that every mkfs takes; sparse
_MOUNTED = {"ext4": "loop,noinit_itable"}
"""With what each is mounted: nothing is written behind the back of who measures."""


class Missing(Exception):
    """This machine cannot provide that file system; the message says what it lacks."""


@contextmanager
def file_system(kind: str) -> Iterator[Path]:
    """An empty directory on a file system of `kind`, gone afterwards.

    Raises:
        Missing: no root, no mkfs, no loop devices, or no such file system in the kernel.
    """
    with tempfile.TemporaryDirectory(prefix=f"crabrt-{kind}-") as name:
        base = Path(name)
        if kind == "here":
            yield base
            return
        point = base / "mounted"
        point.mkdir()
        try:
            if kind == "tmpfs":
                _mount("-t", "tmpfs", "-o", "size=320m", "tmpfs", str(point))
            elif kind == "overlay":
                parts = {part: base / part for part in ("lower", "upper", "work")}
                for path in parts.values():
                    path.mkdir()
                options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**parts)
                _mount("-t", "overlay", "-o", options, "overlay", str(point))
            elif kind == "fuse":
                _mount_in_user_space(base / "below", point)
            else:
                _mount_image(kind, base / "image", point, _IMAGE_BYTES)
            yield point
        finally:  # an interrupt may come between the mount and whatever follows it
            if os.path.ismount(point):
                subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextmanager
def fresh_file_system(kind: str, image: Path, point: Path, size_bytes: int) -> Iterator[Path]:
    """A new file system of one of `LOOP_KINDS` at `point`, gone afterwards.

    Args:
        kind: of it.
        image: a path where nothing is, for the file that holds it; sparse.
        point: a directory, made if it is not there: where it is mounted. It is given.
        size_bytes: of the image.

    Raises:
        Missing: see `file_system`.
    """
    point.mkdir(exist_ok=True)
    try:
        _mount_image(kind, image, point, size_bytes)
        yield point
    finally:
        if os.path.ismount(point):
            subprocess.run(["umount", "--lazy", str(point)], check=True)
        image.unlink(missing_ok=True)


def _mount_image(kind: str, image: Path, point: Path, size_bytes: int) -> None:
    make = shutil.which(f"mkfs.{kind}", path=f"{os.defpath}:/usr/sbin:/sbin")
    if make is None:
        raise Missing(f"mkfs.{kind} is not installed")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run(make, "-q", str(image))
    _mount("-t", kind, "-o", _MOUNTED.get(kind, "loop"), str(image), str(point))


def _mount_in_user_space(below: Path, point: Path) -> None:
    if shutil.which("bindfs") is None:
        raise Missing("bindfs is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Missing("/dev/fuse may not be used")
    below.mkdir()
    # What the kernel remembers of it for a second would be wrong of files with several names.
    _run("bindfs", "-o", "attr_timeout=0,entry_timeout=0", str(below), str(point))


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        raise Missing("mounting needs root")
    _run("mount", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{' '.join(command)}: {done.stderr.strip()}")
