"""CRIU alone: plain calls of it, with nothing round them, and their images in a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from crabrt.bench.brood import Brood
from crabrt.bench.harness import settle, timed
from crabrt.bench.peers import size_of_files
from crabrt.process.criu import Criu

MEMORY = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it

_COMMON = ("--tcp-established", "--file-locks", "--manage-cgroups=ignore", "-v2")
_DUMP = ("--leave-running", "--network-lock", "skip")


class Alone:
    """Calls of CRIU.

    Args:
        criu: which.
        ground: an existing directory, for logs.
        brood: collects what is restored.
        environ: what CRIU sees.
    """

    def __init__(self, criu: Criu, ground: Path, brood: Brood, environ: Mapping[str, str]) -> None:
        self._program, self._ground = str(criu.program), ground
        self._brood, self._environ = brood, environ

    def dump_ms(self, pid: int, into: Path) -> float:
        """How long a dump of a tree into the new directory `into` takes; the tree runs on.

        Raises:
            WorkFailed: it failed.
        """
        into.mkdir()
        command = [self._program, "dump", "--tree", str(pid), *_COMMON, *_DUMP]
        return self._ms([*command, "--images-dir", str(into), "--work-dir", str(self._ground)])

    def durable_ms(self, pid: int, into: Path) -> float:
        """The same, and until the images would survive power loss. They are removed.

        Raises:
            WorkFailed: it failed.
        """
        settle(into.parent)
        dump_ms = self.dump_ms(pid, into)
        sync_ms = timed(lambda: settle(into.parent))[0]
        shutil.rmtree(into)
        return dump_ms + sync_ms

    def restore_ms(self, images: Path) -> float:
        """How long it takes until the tree is alive again.

        Raises:
            WorkFailed: it failed.
        """
        command = [self._program, "restore", *_COMMON, "--restore-detached"]
        return self._ms([*command, "--images-dir", str(images), "--work-dir", str(self._ground)])

    def _ms(self, command: list[str]) -> float:
        log = self._ground / "criu.log"
        return timed(lambda: self._brood.run(command, log, self._environ))[0]


def images_bytes(images: Path) -> int:
    """How large they are together."""
    return size_of_files(images)


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A new directory on tmpfs."""
    with tempfile.TemporaryDirectory(prefix="crab-bench-", dir=MEMORY) as name:
        yield Path(name)


def room_in_memory(needed_bytes: int) -> str | None:
    """Why so many bytes cannot lie on tmpfs here, or None."""
    if not MEMORY.is_dir():
        return f"there is no {MEMORY}"
    there = os.statvfs(MEMORY)
    free_bytes = min(there.f_bavail * there.f_frsize, _available_bytes())
    if free_bytes < needed_bytes:
        return f"it takes {needed_bytes >> 20:,} MiB of memory, {free_bytes >> 20:,} are free"
    return None


def _available_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0
