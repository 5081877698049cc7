"""``crab bench traffic``: how many bytes a turn costs, against what has to be stored at least.

The turns are generated, of the kinds that agents make: edits, new files, test runs that leave
caches, commits in the workspace's own repository, logs that grow, a database of which a few rows
change. Every peer sees every turn.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench import trees
from crabrt.bench.harness import OURS, Bar, Progress, Report, Samples, Series, machine
from crabrt.bench.peers import Git, Peer, PeerFailed, present, size_of_files
from crabrt.bench.subject import Subject

DIRECTORY_BYTES = 4096
"""What a turn may store for each directory in which an entry changed."""

ALLOWED = 1.25
"""How much more than zstd-3 of the files whose bytes changed it may store for them."""

_ROWS = 60_000


@dataclass(frozen=True)
class TrafficOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        entries: size of the tree.
        turns: how many.
        seed: of the turns.
        peers: names from `peers.PEERS`; copies are counted without making them.
    """

    scratch: Path
    entries: int = 1_000
    turns: int = 60
    seed: int = 1
    peers: tuple[str, ...] = ("git", "restic", "borg")


def measure_traffic(
    options: TrafficOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        PeerFailed: a peer's command gave an error.
        CrabError, OSError: ours did.
    """
    settings = {"entries": options.entries, "turns": options.turns, "seed": options.seed}
    report = Report("traffic", machine(options.scratch), settings)
    peers, report.absent = present(options.peers, options.scratch, environ)
    ground = options.scratch / "traffic"
    progress("making a tree")
    tree = trees.make_tree(ground / "work", options.entries)
    turns = Turns(tree, trees.seeded(options.seed), environ)
    turns.prepare()
    keepers = [cls(tree.path, ground / cls.name, environ) for cls in peers]
    by_kind: dict[str, Samples] = {}
    with Subject(tree.path, ground / "store") as subject:
        subject.checkpoint()
        for keeper in keepers:
            keeper.prepare()
            _keep(keeper)
        seen = _contents(tree.path)
        for number in range(options.turns):
            kind = turns.play(number)
            progress(f"turn {number + 1}: {kind}")
            now = _contents(tree.path)
            samples = by_kind.setdefault(kind, Samples())
            _count(samples, subject, keepers, (tree.path, seen, now))
            seen = now
    shutil.rmtree(ground)
    _summarise(report, by_kind)
    return report


Contents = dict[str, tuple[int, int, int]]
"""By path: change time, inode and size; for directories 0 as size."""


def _contents(path: Path) -> dict[str, bytes | None]:
    """The bytes of every file, None for what is not one; directories end in a slash."""
    found: dict[str, bytes | None] = {}
    for above, directories, names in os.walk(path):
        for name in directories:
            found[os.path.relpath(os.path.join(above, name), path) + "/"] = None
        for name in names:
            full = Path(above, name)
            data = None if full.is_symlink() else full.read_bytes()
            found[os.path.relpath(full, path)] = data
    return found


def _count(
    samples: Samples,
    subject: Subject,
    keepers: list[Peer],
    turn: tuple[Path, Mapping[str, bytes | None], Mapping[str, bytes | None]],
) -> None:
    path, before, after = turn
    made = subject.checkpoint()
    content, directories = _needed(before, after)
    samples.add(
        OURS,
        {"stored": made.stored_bytes, "journal": made.journal_bytes},
    )
    samples.add("needed", {"zstd-3 of changed files": content, "changed directories": directories})
    samples.add("full copy", {"stored": sum(len(data) for data in after.values() if data)})
    samples.add("tar.zst", {"stored": _tar_zst(path)})
    for keeper in keepers:
        had = keeper.stored_bytes()
        _keep(keeper)
        samples.add(keeper.name, {"stored": keeper.stored_bytes() - had})


def _keep(keeper: Peer) -> None:
    if isinstance(keeper, Git):
        keeper.commit()
    else:
        keeper.snapshot()


def _needed(
    before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]
) -> tuple[int, int]:
    """zstd-3 of the files whose bytes changed, and how many directories have another entry."""
    from zstandard import ZstdCompressor  # noqa: PLC0415 - heavy, and only this needs it

    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    changed += [name for name in before.keys() ^ after.keys() if name.endswith("/")]
    compressor = ZstdCompressor(level=3)
    content = sum(len(compressor.compress(data)) for n in changed if (data := after.get(n)))
    directories = {os.path.dirname(name.rstrip("/")) for name in changed}
    return content, len(directories)
