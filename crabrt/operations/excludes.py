"""Which directories of a large workspace are worth excluding: derived, and heavy.

A proposal only. Nothing is excluded by default: an excluded path is not protected, and whoever
excludes it should know that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

DERIVED: dict[bytes, str] = {
    b"node_modules": "installed by npm, pnpm or yarn",
    b".venv": "a virtual environment",
    b"venv": "a virtual environment",
    b".tox": "environments made by tox",
    b".nox": "environments made by nox",
    b"__pycache__": "compiled Python",
    b".mypy_cache": "a cache of mypy",
    b".pytest_cache": "a cache of pytest",
    b".ruff_cache": "a cache of ruff",
    b".gradle": "a cache of Gradle",
    b"target": "build output (Cargo, Maven)",
    b"build": "build output",
    b"dist": "build output",
    b".next": "build output of Next.js",
    b".cache": "a cache",
    b".terraform": "providers fetched by Terraform",
}
"""Directory names that a tool makes again, and which one."""

LARGE_ENTRIES = 20_000
LARGE_BYTES = 1 << 30
_WORTH_ENTRIES = 1_000
_WORTH_BYTES = 64 << 20


@dataclass(frozen=True)
class Proposal:
    """A directory that could be excluded: gitignore `pattern`, what it holds, and what made it."""

    path: bytes
    pattern: str
    entries: int
    size_bytes: int
    why: str


@dataclass(frozen=True)
class Survey:
    """What a walk over a workspace counted. `proposals` are empty unless it is large."""

    entries: int
    size_bytes: int
    unreadable: int
    proposals: tuple[Proposal, ...]

    @property
    def large(self) -> bool:
        """Whether its baseline takes long enough to think about excludes."""
        return self.entries > LARGE_ENTRIES or self.size_bytes > LARGE_BYTES


class _Count:
    __slots__ = ("entries", "size_bytes", "unreadable")

    def __init__(self) -> None:
        self.entries = self.size_bytes = self.unreadable = 0


def survey(root: bytes, progress: Callable[[int], None] | None = None) -> Survey:
    """Count the workspace at `root`, and propose excludes if it is large.

    Never crosses into another file system. `progress` is called with the entries so far.
    """
    total = _Count()
    derived: dict[bytes, _Count] = {}
    device = os.lstat(root).st_dev
    pending: list[tuple[bytes, bytes | None]] = [(root, None)]
    while pending:
        directory, owner = pending.pop()
        counts = [total] if owner is None else [total, derived[owner]]
        for path, info in _children(directory, total):
            for count in counts:
                count.entries += 1
                count.size_bytes += info.st_size if stat.S_ISREG(info.st_mode) else 0
            if stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                below = owner
                if owner is None and os.path.basename(path) in DERIVED:
                    below = path
                    derived[path] = _Count()
                pending.append((path, below))
        if progress is not None:
            progress(total.entries)
    found = Survey(total.entries, total.size_bytes, total.unreadable, ())
    if not found.large:
        return found
    proposals = [
        _proposal(root, path, count)
        for path, count in derived.items()
        if count.entries >= _WORTH_ENTRIES or count.size_bytes >= _WORTH_BYTES
    ]
    proposals.sort(key=lambda proposal: (-proposal.entries, proposal.path))
    return Survey(total.entries, total.size_bytes, total.unreadable, tuple(proposals))


def _children(directory: bytes, total: _Count) -> list[tuple[bytes, os.stat_result]]:
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found.append((entry.path, entry.stat(follow_symlinks=False)))
                except OSError:
                    total.unreadable += 1
    except OSError:
        total.unreadable += 1  # counted, and told: this is a survey, not a capture
    return found


def _proposal(root: bytes, path: bytes, count: _Count) -> Proposal:
    relative = os.path.relpath(path, root)
    pattern = "/" + os.fsdecode(relative) + "/"
    for special in "\\*?[!#":
        pattern = pattern.replace(special, "\\" + special)
    why = DERIVED[os.path.basename(path)]
    return Proposal(relative, pattern, count.entries, count.size_bytes, why)
