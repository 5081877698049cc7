"""What people would use instead: git beside the tree, restic, borg, and plain copies.

Every peer keeps its repository outside of the workspace and runs as its documentation says, with
nothing tuned but what keeps it from asking questions. A peer that cannot run here says why; figures
of it are never guessed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from crabrt.bench.floor import can_reflink
from crabrt.errors import CrabError


class PeerFailed(CrabError):
    """A peer's command gave an error: its figures would mean nothing."""

    kind = "peer-failed"


class Peer(ABC):
    """A way to keep states of a directory.

    Args:
        tree: the workspace.
        scratch: a directory of its own, not there yet.
        environ: what its commands see.

    Attributes:
        name: what it is called in tables.
        warned: exit codes that say: done, but files changed or went while they were read.
    """

    name: ClassVar[str]
    warned: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, tree: Path, scratch: Path, environ: Mapping[str, str]) -> None:
        self.tree = tree
        self.scratch = scratch
        self._environ = dict(environ)

    @classmethod
    def absence(cls, scratch: Path, environ: Mapping[str, str]) -> str | None:
        """Why it cannot run here, or None."""
        del scratch
        return None if shutil.which(cls.name, path=environ.get("PATH")) else "not installed"

    def prepare(self) -> None:
        """Make its empty repository. Not measured."""
        self.scratch.mkdir(parents=True)

    def make_ready(self) -> None:  # noqa: B027 - most have nothing to do
        """Whatever has to be out of the way before the next snapshot. Not measured."""

    @abstractmethod
    def snapshot(self) -> None:
        """Keep the workspace as it is now."""

    @abstractmethod
    def restore(self, directory: Path) -> None:
        """Bring the last state to the new directory `directory`."""

    def stored_bytes(self) -> int:
        """Bytes of files in its repository."""
        return size_of_files(self.scratch)

    def run(self, command: Sequence[str | Path], *, cwd: Path | None = None) -> str:
        """Run one of its commands; what it printed.

        Raises:
            PeerFailed: it ended with an error.
        """
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.tree,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode and done.returncode not in self.warned:
            tail = done.stderr.decode(errors="replace").strip()[-300:]
            raise PeerFailed(f"{self.name} ended with {done.returncode}: {tail}")
        return done.stdout.decode(errors="replace")


class Git(Peer):
    """``git add -A && git write-tree`` in a repository beside the tree."""

    name = "git"

    def prepare(self) -> None:
        """Make a repository that no user's settings reach."""
        super().prepare()
        self._environ |= {
            "GIT_DIR": str(self.scratch / "git"),
            "GIT_WORK_TREE": str(self.tree),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.run(["git", "init", "--quiet"])
        self.run(["git", "config", "gc.auto", "0"])

    def snapshot(self) -> None:
        """Add and write a tree."""
        self.write_tree()

    def write_tree(self) -> str:
        """`snapshot`; the tree's id."""
        self.run(["git", "add", "-A", "-f", "."])
        return self.run(["git", "write-tree"]).strip()

    def commit(self) -> None:
        """What a shadow repository does at every turn."""
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        self.run(["git", "add", "-A", "-f", "."])
        self.run(["git", *who, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "turn"])

    def status(self) -> None:
        """What an exact scan is compared with."""
        self.run(["git", "status", "--porcelain"])

    def checkout(self, tree_id: str) -> None:
        """Put the workspace itself to a tree."""
        self.run(["git", "read-tree", "--reset", "-u", tree_id])

    def diff(self, before: str, after: str) -> None:
        """The names that differ between two trees."""
        self.run(["git", "diff-tree", "-r", "--name-status", before, after])

    def restore(self, directory: Path) -> None:
        """Check the index out elsewhere."""
        directory.mkdir()
        self.run(["git", "checkout-index", "-a", f"--prefix={directory}/"])


class Restic(Peer):
    """restic with a local repository."""

    name = "restic"
    warned = frozenset({3})

    def prepare(self) -> None:
        """Make a repository."""
        super().prepare()
        password = self.scratch / "password"
        password.write_text("bench")
        self._command: list[str | Path] = [
            "restic", "--quiet", "--repo", self.scratch / "repo", "--password-file", password,
            "--cache-dir", self.scratch / "cache",
        ]  # fmt: skip
        self.run([*self._command, "init"])

    def snapshot(self) -> None:
        """Back up."""
        self.run([*self._command, "backup", "."])

    def restore(self, directory: Path) -> None:
        """Restore the latest snapshot."""
        self.run([*self._command, "restore", "latest", "--target", directory])

    def stored_bytes(self) -> int:
        """Without its cache."""
        return size_of_files(self.scratch / "repo")


class Borg(Peer):
    """borg with a local repository, not encrypted."""

    name = "borg"
    warned = frozenset({1})

    def prepare(self) -> None:
        """Make a repository."""
        super().prepare()
        self._environ |= {
            "BORG_BASE_DIR": str(self.scratch / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        self._repo = self.scratch / "repo"
        self._count = 0
        self.run(["borg", "init", "--encryption", "none", self._repo])

    def snapshot(self) -> None:
        """Create an archive."""
        self._count += 1
        self.run(["borg", "create", f"{self._repo}::{self._count}", "."])

    def restore(self, directory: Path) -> None:
        """Extract the latest archive."""
        directory.mkdir()
        self.run(["borg", "extract", f"{self._repo}::{self._count}"], cwd=directory)

    def stored_bytes(self) -> int:
        """Without its cache."""
        return size_of_files(self._repo)


class Copy(Peer):
    """``cp -a`` of everything, every time."""

    name = "cp"
    flags: ClassVar[tuple[str, ...]] = ("-a",)

    def prepare(self) -> None:
        """Make room."""
        super().prepare()
        self._last = self.scratch / "copy"

    def snapshot(self) -> None:
        """Copy."""
        self.run(["cp", *self.flags, self.tree, self._last])

    def make_ready(self) -> None:
        """Remove the last copy."""
        shutil.rmtree(self._last, ignore_errors=True)

    def restore(self, directory: Path) -> None:
        """Copy back."""
        self.run(["cp", *self.flags, self.tree, directory])


class Reflink(Copy):
    """``cp -a --reflink=always``: shared blocks, where the file system can."""

    name = "reflink"
    flags = ("-a", "--reflink=always")

    @classmethod
    def absence(cls, scratch: Path, environ: Mapping[str, str]) -> str | None:
        """The file system decides."""
        del environ
        return None if can_reflink(scratch) else "the file system cannot share blocks"


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Git, Restic, Borg, Copy, Reflink)}
"""Every peer there is, by name."""


def size_of_files(path: Path) -> int:
    """Lengths of all files below `path`."""
    return sum(
        os.lstat(os.path.join(above, name)).st_size
        for above, _, names in os.walk(path)
        for name in names
    )


def present(
    wanted: Sequence[str], scratch: Path, environ: Mapping[str, str]
) -> tuple[list[type[Peer]], dict[str, str]]:
    """Those of the wanted peers that can run here, and why the others cannot."""
    found: list[type[Peer]] = []
    absent: dict[str, str] = {}
    for name in wanted:
        why = PEERS[name].absence(scratch, environ)
        if why is None:
            found.append(PEERS[name])
        else:
            absent[name] = why
    return found, absent
