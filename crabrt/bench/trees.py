"""Workspaces to measure on: copies of Python's own library and packages, as large as asked for.

They have what real source trees have: deep and flat directories, many small files and a few large
ones, text that compresses. Where the sources run out they are taken again, each file with a line of
its own, so that no store gains by finding the same bytes twice.
"""

from __future__ import annotations

import os
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SOURCE_MAX = 1 << 20  # bytes; larger files are libraries, not source
_EDITED_MAX = 64 << 10
_DRAWS = 20
_LEFT_OUT = frozenset({"__pycache__", ".git"})


def seeded(seed: int) -> random.Random:
    """Randomness that repeats."""
    return random.Random(seed)  # noqa: S311 - it chooses which files to edit


@dataclass(frozen=True)
class Tree:
    """A workspace that was made.

    Attributes:
        path: where.
        files: relative paths of the regular files.
        entries: files and directories.
        size_bytes: of the files.
    """

    path: Path
    files: tuple[str, ...]
    entries: int
    size_bytes: int

    def edit(self, count: int, rng: random.Random) -> Edit:
        """A change of `count` files (fewer if there are not as many), not yet made."""
        chosen = sorted(self._small(count, rng))
        before = {name: (self.path / name).read_bytes() for name in chosen}
        after = {name: _edited(data, rng) for name, data in before.items()}
        return Edit(self.path, before, after)

    def _small(self, count: int, rng: random.Random) -> set[str]:
        """So many small files: drawn, as looking at all of a large tree takes long."""
        drawn: set[str] = set()
        for _ in range(_DRAWS * count):
            name = rng.choice(self.files)
            if self._is_small(name):
                drawn.add(name)
            if len(drawn) == count:
                return drawn
        small = [name for name in self.files if self._is_small(name)]
        return set(rng.sample(small, min(count, len(small))))

    def _is_small(self, name: str) -> bool:
        return 0 < os.lstat(self.path / name).st_size <= _EDITED_MAX


@dataclass(frozen=True)
class Edit:
    """Files as they were and as they will be; `apply` and `revert` write them in place."""

    path: Path
    before: dict[str, bytes]
    after: dict[str, bytes]

    def apply(self) -> None:
        """Write what the edit makes of them."""
        _write(self.path, self.after)

    def revert(self) -> None:
        """Write them as they were."""
        _write(self.path, self.before)


def make_tree(path: Path, entries: int) -> Tree:
    """Make a workspace of (about) `entries` files and directories in the new directory `path`.

    Raises:
        OSError: it cannot be written.
    """
    path.mkdir(parents=True)
    files: list[str] = []
    directories = {path}
    size_bytes = 0
    for name, data in _contents():
        target = path / name
        new = [
            above
            for above in target.parents
            if above not in directories and above.is_relative_to(path)
        ]
        if len(files) + len(directories) + len(new) > entries:
            break
        target.parent.mkdir(parents=True, exist_ok=True)
        directories.update(new)
        target.write_bytes(data)
        files.append(name)
        size_bytes += len(data)
    return Tree(path, tuple(files), len(files) + len(directories) - 1, size_bytes)


def tree_at(path: Path) -> Tree:
    """The workspace that `make_tree` made there, as it is now."""
    files: list[str] = []
    entries = size_bytes = 0
    for above, directories, names in os.walk(path):
        inside = Path(above).relative_to(path)
        entries += len(directories) + len(names)
        for name in names:
            full = Path(above, name)
            if full.is_file() and not full.is_symlink():
                files.append(str(inside / name))
                size_bytes += full.stat().st_size
    return Tree(path, tuple(sorted(files)), entries, size_bytes)


def _contents() -> Iterator[tuple[str, bytes]]:
    """Names and bytes, without an end."""
    roots = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib")]
    turn = 0
    while True:
        for root in roots:
            for name in _source_files(root):
                data = (root / name).read_bytes()
                if turn:
                    data = b"# edition %d of %s\n" % (turn, os.fsencode(name)) + data
                yield (f"edition{turn}/{name}" if turn else f"{root.name}/{name}"), data
        turn += 1


def _source_files(root: Path) -> Iterator[str]:
    for above, directories, names in os.walk(root):
        directories[:] = sorted(
            d for d in directories if d not in _LEFT_OUT and d != "site-packages"
        )
        for name in sorted(names):
            path = Path(above, name)
            if name.startswith(".git") or path.is_symlink():
                continue
            if path.stat().st_size <= _SOURCE_MAX:
                yield str(path.relative_to(root))


def _edited(data: bytes, rng: random.Random) -> bytes:
    """A line more, somewhere: what an agent's edit looks like to a store."""
    at = data.find(b"\n", rng.randrange(len(data))) + 1
    line = b"# %x: an edit\n" % rng.getrandbits(128)
    return data[:at] + line + data[at:]


def _write(path: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (path / name).write_bytes(data)
