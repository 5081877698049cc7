"""Where the bytes of a store are: its own, and each run's share of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crabrt.core.ids import RunId
from crabrt.journal import RunIndex, run_dir
from crabrt.operations.roots import referenced
from crabrt.store import Store
from crabrt.store.usage import Usage, usage


@dataclass(frozen=True)
class RunUsage:
    """One run's share: bytes stored when its checkpoints were made, and its journal's size."""

    run: str
    name: str
    turns: int
    stored_bytes: int
    journal_bytes: int


def measure(store: Store, *, live: bool) -> Usage:
    """Where the store's bytes are; with `live`, how much of them is still referred to.

    Raises:
        CrabError: as ``store.usage.usage``.
    """
    return usage(store, (lambda: referenced(store)) if live else None)


def runs_usage(store: Store, index: RunIndex) -> list[RunUsage]:
    """Every run's share, largest first."""
    found = []
    for run in index.runs():
        turns = index.turns(run.run)
        found.append(
            RunUsage(
                run.run,
                run.name,
                len(turns),
                sum(turn.bytes_stored for turn in turns),
                _tree_bytes(run_dir(store.home, RunId(run.run))),
            )
        )
    return sorted(found, key=lambda one: (-one.stored_bytes - one.journal_bytes, one.run))


def _tree_bytes(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue  # a message's temporary name
    return total
