"""Who keeps files: replay of the calls, a container's commit, a full copy, a shadow repository.

All begin with the same base, which each of them has already: the image of a container, the first
commit. What a turn leaves is above that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from crabrt.bench.mechanisms_content import change_files, write_files
from crabrt.bench.mechanisms_loop import program
from crabrt.bench.mechanisms_replay import REPLAY, Log
from crabrt.bench.peers import Copy, Git, Peer

_PACK = ("tar", "--xattrs", "--xattrs-include=*")


class Mechanism(Peer):
    """One of them.

    Attributes:
        base: what everybody begins with.
        tree: where turns work.
        in_place: whether it puts the workspace itself back; else what it restores is elsewhere, and
            what was there is out of the way already.
    """

    base: Path
    in_place = False

    def begin(self, base: Path) -> None:
        """Make it ready to keep turns, and the base with it. Not measured."""
        self.base = base
        self.prepare()

    def prefix(self, size_bytes: int, seed: int) -> None:
        """The prefix was made in the workspace; make it where else it has to be. Not measured."""

    def change(self, size_bytes: int, seed: int) -> None:
        """The same for a turn that changed a small part."""

    def make_room(self, directory: Path) -> None:
        """Whatever a restore may find there. Not measured."""

    def seen(self, directory: Path) -> Path:
        """Where the files are that were restored to `directory`."""
        return directory

    def clear(self, directory: Path) -> None:
        """Remove what was restored to `directory`. Not measured."""
        shutil.rmtree(directory)

    def close(self) -> None:
        """Let go of what it holds."""


class Overlay:
    """A container's file system: a base that nobody writes, and what was written above it.

    Attributes:
        upper: what was written.
        merged: both, as the container sees it.
    """

    def __init__(self, lower: Path, ground: Path) -> None:
        self._lower = lower
        self._work = ground / "work"
        self.upper, self.merged = ground / "upper", ground / "merged"
        for path in (self._work, self.upper, self.merged):
            path.mkdir(parents=True)

    def mount(self) -> None:
        """Let it be seen.

        Raises:
            subprocess.CalledProcessError: it cannot be mounted.
        """
        parts = f"lowerdir={self._lower},upperdir={self.upper},workdir={self._work}"
        command = ["mount", "-t", "overlay", "-o", parts, "overlay", str(self.merged)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self) -> None:
        """Let it go, if it is there."""
        if os.path.ismount(self.merged):
            subprocess.run(["umount", "--lazy", str(self.merged)], check=True)


class Commit(Mechanism):
    """A container's commit: a tar of all that was written above its image."""

    name = "commit"

    @classmethod
    def absence(cls, scratch: Path, environ: Mapping[str, str]) -> str | None:
        """Tried: it takes root, and a file system that can be an upper layer."""
        if not shutil.which("tar", path=environ.get("PATH")):
            return "tar is not installed"
        ground = scratch / "overlay"
        overlay = Overlay(scratch, ground)
        try:
            overlay.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            return f"no overlay here: {said.decode('utf-8', 'replace').strip()}"
        else:
            return None
        finally:
            overlay.unmount()
            shutil.rmtree(ground)

    def begin(self, base: Path) -> None:
        """Start the container."""
        super().begin(base)
        self._restored: Overlay | None = None
        self._layer = self.scratch / "layer.tar"
        self._overlay = Overlay(base, self.scratch / "container")
        self._overlay.mount()
        self.tree = self._overlay.merged

    def prefix(self, size_bytes: int, seed: int) -> None:
        """In the container, too."""
        write_files(self.tree, size_bytes, seed)

    def change(self, size_bytes: int, seed: int) -> None:
        """In the container, too."""
        change_files(self.tree, size_bytes, seed)

    def make_ready(self) -> None:
        """Remove the last layer."""
        self._layer.unlink(missing_ok=True)

    def snapshot(self) -> None:
        """Pack the upper directory."""
        self.run([*_PACK, "-C", self._overlay.upper, "-cf", self._layer, "."], cwd=self.scratch)

    def restore(self, directory: Path) -> None:
        """Unpack it into a new container's upper directory, and start that."""
        self._restored = Overlay(self.base, directory)
        self.run([*_PACK, "-C", self._restored.upper, "-xf", self._layer], cwd=self.scratch)
        self._restored.mount()

    def seen(self, directory: Path) -> Path:
        """What the new container sees."""
        return directory / "merged"

    def clear(self, directory: Path) -> None:
        """Stop that container first."""
        self._stop_restored()
        super().clear(directory)

    def close(self) -> None:
        """Stop all containers."""
        self._stop_restored()
        self._overlay.unmount()

    def _stop_restored(self) -> None:
        if self._restored is not None:
            self._restored.unmount()
            self._restored = None

    def stored_bytes(self) -> int:
        """Of the layer."""
        return self._layer.stat().st_size if self._layer.exists() else 0


class FullCopy(Mechanism, Copy):
    """``cp -a``, and back from the copy."""

    def restore(self, directory: Path) -> None:
        """Copy the copy."""
        self.run(["cp", *self.flags, self._last, directory])


class ShadowGit(Mechanism, Git):
    """A repository beside the tree, and a commit a turn."""

    in_place = True

    def begin(self, base: Path) -> None:
        """Commit the base."""
        super().begin(base)
        self.commit()

    def snapshot(self) -> None:
        """Add everything, and commit."""
        self.commit()

    def restore(self, directory: Path) -> None:
        """Put the workspace to the last commit."""
        del directory
        self.checkout("HEAD")


class Replay(Mechanism):
    """The calls alone; they are made again on a copy of the base."""

    name = REPLAY

    @classmethod
    def absence(cls, scratch: Path, environ: Mapping[str, str]) -> str | None:
        """It can always be had."""
        del scratch, environ
        return None

    def begin(self, base: Path) -> None:
        """Make an empty log."""
        super().begin(base)
        self._log = Log(self.scratch / "log")
        self._calls: list[tuple[object, ...]] = []

    def prefix(self, size_bytes: int, seed: int) -> None:
        """A call was made."""
        self._calls.append(("files", size_bytes, seed))

    def change(self, size_bytes: int, seed: int) -> None:
        """A call was made."""
        self._calls.append(("change", size_bytes, seed))

    def snapshot(self) -> None:
        """Note the last call."""
        self._log.append_ms(self._calls[-1])

    def make_room(self, directory: Path) -> None:
        """The base."""
        shutil.copytree(self.base, directory, symlinks=True)

    def restore(self, directory: Path) -> None:
        """Make the calls again."""
        for verb, *words in self._calls:
            self.run(program(verb, directory, *words))


MECHANISMS: tuple[type[Mechanism], ...] = (Replay, Commit, FullCopy, ShadowGit)
