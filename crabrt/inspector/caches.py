"""Caches: what tools make again by themselves, and which changes are of nothing else.

Byte code, caches of tests, linters and builds, and a git index whose stat cache alone is another
one. Such changes are captured like any others (last); they are told apart in the evidence, and a
user may have them left out (``regenerable = "skip"``).

What is listed is made again without a network and without anybody asking, and nobody reads it to
learn something: no build output, no environments, no coverage, no saved failing examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from crabrt.core.config import Config
from crabrt.core.trees import Entry, Kind
from crabrt.errors import DamagedObject
from crabrt.inspector.caches_git import MAX_BYTES, same_but_cached
from crabrt.workspace import Change, ignore

T = TypeVar("T")

PATTERNS = (
    "__pycache__/",
    ".pytest_cache/",
    ".mypy_cache/",
    ".dmypy.json",
    ".pytype/",
    ".pyre/",
    ".ruff_cache/",
    ".import_linter_cache/",
    "**/.hypothesis/unicode_data/",
    "**/.hypothesis/constants/",
    ".eslintcache",
    ".stylelintcache",
    "*.tsbuildinfo",
    "**/node_modules/.cache/",
    "**/node_modules/.vite/",
    ".parcel-cache/",
    "**/.turbo/cache/",
    ".sass-cache/",
    ".phpunit.result.cache",
    ".php-cs-fixer.cache",
    "**/.clangd/index/",
    "**/.cache/clangd/",
    ".ccls-cache/",
)
"""In gitignore syntax; ``**/`` since a pattern with a slash inside holds at the top alone. A
configuration adds ``regenerable_patterns``."""

_LONG = 4096
"""Bytes of a path beyond which it is not matched: no tool makes such caches, and it is slow."""

ReadEntry = Callable[[Entry], bytes]


def left_out(config: Config) -> tuple[str, ...]:
    """All patterns that `config` excludes: caches too, where it skips them."""
    if config.regenerable != "skip":
        return config.exclude
    patterns = (*PATTERNS, *config.regenerable_patterns, *config.exclude)
    return tuple(dict.fromkeys(patterns))


class Caches:
    """Knows caches by their paths. Not thread-safe: it remembers directories."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        self._more = tuple(more)

    @functools.cached_property
    def _covered(self) -> ignore.Covered:  # when first asked: the matching library takes 20 ms
        return ignore.Covered(ignore.configured((*PATTERNS, *self._more), None))

    def within(self, directory: bytes) -> bool:
        """Whether everything in `directory` is something that tools make again."""
        return len(directory) <= _LONG and self._covered.within(directory)

    def among(self, changes: Iterable[Change], read: ReadEntry) -> frozenset[bytes]:
        """The paths of those `changes` that are of caches alone.

        Args:
            changes: of a turn.
            read: gives the bytes of a file before or after; asked for git indexes.

        Raises:
            StoreUnavailable: `read` does.
        """
        return frozenset(change.path for change in changes if self._is_one(change, read))

    def _is_one(self, change: Change, read: ReadEntry) -> bool:
        if len(change.path) > _LONG:
            return False
        sides = [entry for entry in (change.before, change.after) if entry is not None]
        if all(self._covered.has(change.path, is_dir=entry.kind == Kind.DIR) for entry in sides):
            return True
        return _is_git_index(change.path) and _stat_cache_alone(change, read)


def last(items: Iterable[T], is_cache: Callable[[T], bool]) -> Iterator[T]:
    """`items`, those of caches behind all others."""
    behind = []
    for item in items:
        if is_cache(item):
            behind.append(item)
        else:
            yield item
    yield from behind


def _is_git_index(path: bytes) -> bool:
    *above, name = path.split(b"/")
    return name == b"index" and b".git" in above


def _stat_cache_alone(change: Change, read: ReadEntry) -> bool:
    before, after = change.before, change.after
    if before is None or after is None or not set(change.how) <= {"content", "times"}:
        return False
    if before.content == after.content:
        return True
    for side in (before, after):
        if side.kind != Kind.FILE or side.content is None or side.content.size > MAX_BYTES:
            return False
    try:
        return same_but_cached(read(before), read(after))
    except DamagedObject:
        return False  # what cannot be compared counts as changed
