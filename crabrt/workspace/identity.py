"""Which directory a workspace is, where its own state lies, and which directories are refused."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from crabrt.errors import NotFound, StoreUnavailable, WorkspaceRefused
from crabrt.workspace import ignore
from crabrt.workspace.claims import Claim, claim
from crabrt.workspace.dirfd import open_directory
from crabrt.workspace.stamps import kernel_file_system


@dataclass(frozen=True)
class Workspace:
    """A directory under protection.

    Attributes:
        path: absolute, symlinks resolved, raw bytes.
        id: hex digest of path, file system and inode: a directory moved or recreated is another.
        device, inode: of the directory when it was opened.
        state_dir: ``<store>/workspaces/<id>``, mode 0700: index, restore log.
        home: the store's directory.
        excludes: what configuration excludes, or None; ``.crabignore`` files come on top.
    """

    path: bytes
    id: str
    device: int
    inode: int
    state_dir: Path
    home: Path
    excludes: ignore.Matcher | None = None

    @classmethod
    def open(
        cls,
        path: str | bytes | Path,
        home: Path,
        *,
        force: bool = False,
        exclude: Sequence[str] = (),
    ) -> Workspace:
        """Look at `path` and prepare its state directory in the store at `home`.

        Raises:
            NotFound: there is nothing at `path`.
            WorkspaceRefused: not a directory, not readable, inside the store, of the kernel's own
                (``/proc``, ``/sys``), or (unless `force`) ``/`` or a home directory.
            StoreUnavailable: the state directory cannot be made.
        """
        real = os.path.realpath(os.fsencode(path))
        status, fsid = _look(real)
        if not force:
            _refuse_dear_places(real)
        store = os.path.realpath(os.fsencode(home))
        if real == store or real.startswith(store + b"/"):
            raise WorkspaceRefused("this is crabrt's own store", where=os.fsdecode(real))
        above = real.rstrip(b"/") + b"/"
        inside = store[len(above) :] if store.startswith(above) else None
        volume = fsid or status.st_dev
        text = b"%s\0%d\0%d" % (real, volume, status.st_ino)
        name = blake3(text).hexdigest(16)
        return cls(
            path=real,
            id=name,
            device=status.st_dev,
            inode=status.st_ino,
            state_dir=_make_state_dir(Path(os.fsdecode(store)), name),
            home=Path(os.fsdecode(store)),
            excludes=ignore.configured(exclude, inside),
        )

    def claim(self, family: str, *, shared: bool = False) -> Claim:
        """Take this directory for the runs of `family`.

        Raises:
            WorkspaceBusy: another live family works here, above or below, and this one did not ask
                to share.
        """
        return claim(self.home / "workspaces" / "claims", self.path, family, shared=shared)

    def open_root(self) -> int:
        """A descriptor of the directory.

        Raises:
            NotFound: it is gone.
            WorkspaceRefused: something else is at its path now, or it may not be read.
        """
        try:
            fd = open_directory(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("the workspace is gone", where=os.fsdecode(self.path)) from error
        except OSError as error:
            raise WorkspaceRefused(
                f"the workspace cannot be read: {error.strerror}", where=os.fsdecode(self.path)
            ) from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(fd)
            raise WorkspaceRefused(
                "the workspace was replaced by another directory",
                where=os.fsdecode(self.path),
                hint="start a new run on it",
            )
        return fd


def _look(real: bytes) -> tuple[os.stat_result, int]:
    where = os.fsdecode(real)
    try:
        fd = open_directory(real)
    except FileNotFoundError as error:
        raise NotFound("no such directory", where=where) from error
    except NotADirectoryError as error:
        raise WorkspaceRefused("not a directory", where=where) from error
    except OSError as error:
        raise WorkspaceRefused(f"cannot be read: {error.strerror}", where=where) from error
    try:
        kind = kernel_file_system(fd)
        if kind is not None:
            raise WorkspaceRefused(
                f"{kind} is the kernel's own: nothing can be put back", where=where
            )
        return os.fstat(fd), os.fstatvfs(fd).f_fsid
    finally:
        os.close(fd)


def _refuse_dear_places(real: bytes) -> None:
    homes = {os.path.realpath(os.path.expanduser(b"~"))}
    with suppress(KeyError):  # a uid without an account has no home to protect
        homes.add(os.path.realpath(os.fsencode(pwd.getpwuid(os.getuid()).pw_dir)))
    what = "the root directory" if real == b"/" else "a home directory" if real in homes else None
    if what is not None:
        raise WorkspaceRefused(
            f"this is {what}",
            where=os.fsdecode(real),
            hint="work in a directory below it, or force it (force=True, CRAB_FORCE=1)",
        )


def _make_state_dir(home: Path, name: str) -> Path:
    path = home / "workspaces" / name
    try:
        os.makedirs(home.parent, exist_ok=True)
        for directory in (home, path.parent, path):  # a mode given for parents would not be used
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"cannot make the workspace's state directory: {error.strerror}",
            where=str(path),
            hint="check the disk, or set CRAB_HOME",
        ) from error
    return path
