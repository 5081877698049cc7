"""Why turns were not `none`: what kind of path they changed, by turns and by bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from crabrt.core.trees import Entry, Kind
from crabrt.journal import TurnRow
from crabrt.store import Store
from crabrt.workspace import diff_roots

_DIRECTORIES = "directories alone"
_CACHES = (
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    "node_modules",
    "site-packages",
)


@dataclass
class Causes:
    """Counts by kind of path.

    Attributes:
        turns: in how many turns such paths changed.
        alone: in how many of them nothing else did.
        size_bytes: of the changed files, as they were afterwards.
    """

    turns: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, other: dict[str, Any]) -> None:
        """Take up the counts of a worker (see `data`)."""
        self.turns.update(other["turns"])
        self.alone.update(other["alone"])
        self.size_bytes.update(other["size_bytes"])

    def data(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "turns": dict(self.turns),
            "alone": dict(self.alone),
            "size_bytes": dict(self.size_bytes),
        }


def causes_of(store: Store, rows: Sequence[TurnRow]) -> Causes:
    """What the turns of a run changed, from the states before and after each."""
    found = Causes()
    root = {row.turn: row.root for row in rows}
    for row in rows:
        before = root.get(row.base)
        if row.turn and row.root is not None and before not in (None, row.root):
            assert before is not None
            kinds = Counter[str]()
            for change in diff_roots(store, before, row.root):
                if Kind.DIR not in (entry.kind for entry in (change.before, change.after) if entry):
                    kinds[path_kind(change.path)] += _bytes(change.after)
            if not kinds:
                kinds[_DIRECTORIES] += 0
            _note(found, kinds)
    return found


def _note(found: Causes, kinds: Counter[str]) -> None:
    found.turns.update(dict.fromkeys(kinds, 1))
    found.size_bytes.update(kinds)
    if len(kinds) == 1:
        found.alone.update(dict.fromkeys(kinds, 1))


def path_kind(path: bytes) -> str:
    """What a path is, by its name alone: ``.git/index``, ``__pycache__``, ``*.py``, ..."""
    pure = PurePath(path.decode("utf-8", "replace"))
    for part in pure.parts:
        if part == ".git":
            return ".git/index" if pure.name == "index" else ".git, the rest"
        if part in _CACHES:
            return part
    return f"*{pure.suffix}" if pure.suffix else "no suffix"


def _bytes(entry: Entry | None) -> int:
    return 0 if entry is None or entry.content is None else entry.content.size


def largest(counts: Counter[str], most: int) -> Iterable[tuple[str, int]]:
    """The largest counts, the largest first; names decide between equals."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
