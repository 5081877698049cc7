"""``crab bench traffic``: how many bytes a turn costs, beside what has to be stored at least.

The turns are those of `turns`, and every peer keeps every one of them. Needed is zstd -3 of each
file whose bytes changed (whole, though a part may do), and 4 KiB for each directory in which an
entry changed. Journal bytes stand apart: a run writes them whether files changed or not.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from crabrt.bench import trees
from crabrt.bench.harness import Progress, machine
from crabrt.bench.peers import Git, Peer, present
from crabrt.bench.report import OURS, Bar, Report, Samples, Series
from crabrt.bench.subject import Subject
from crabrt.bench.turns import Turns

DIRECTORY_BYTES = 4096
"""What a turn may store for each directory in which an entry changed."""

ALLOWED = 1.25
"""How often zstd -3 of the files whose bytes changed it may store for them."""

_LEVEL = 3

Bytes = dict[str, bytes | None]
"""By path: the bytes of a regular file, None for anything else; directories end in a slash."""


@dataclass(frozen=True)
class TrafficOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        entries: size of the tree.
        turns: how many.
        seed: of the turns.
        peers: names from `peers.PEERS`; copies are counted without being made.
    """

    scratch: Path
    entries: int = 1_000
    turns: int = 42
    seed: int = 1
    peers: tuple[str, ...] = ("git", "restic", "borg")


def measure_traffic(
    options: TrafficOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Args:
        options: what.
        environ: what the peers' commands see.
        progress: told what is done now.

    Raises:
        PeerFailed: a peer's command gave an error.
        CrabError, OSError, subprocess.CalledProcessError: something else did.
    """
    settings = {"entries": options.entries, "turns": options.turns, "seed": options.seed}
    report = Report("traffic", machine(options.scratch), settings)
    keepers_can = [name for name in options.peers if name not in ("cp", "reflink")]
    classes, report.absent = present(keepers_can, options.scratch, environ)
    ground = options.scratch / "traffic"
    progress("making a tree")
    tree = trees.make_tree(ground / "work", options.entries)
    turns = Turns(tree, trees.seeded(options.seed), environ)
    turns.prepare()
    keepers = [cls(tree.path, ground / cls.name, environ) for cls in classes]
    by_kind: dict[str, Samples] = {}
    with Subject(tree.path, ground / "store") as subject:
        subject.checkpoint()
        for keeper in keepers:
            keeper.prepare()
            _keep(keeper)
        before = _read_all(tree.path)
        for number in range(options.turns):
            kind = turns.play(number)
            progress(f"turn {number + 1}: {kind}")
            after = _read_all(tree.path)
            samples = by_kind.setdefault(kind, Samples())
            _count_ours(samples, subject, before, after)
            samples.add("full copy", {"stored": sum(len(data or b"") for data in after.values())})
            samples.add("tar.zst", {"stored": _tar_zst_bytes(tree.path)})
            for keeper in keepers:
                samples.add(keeper.name, {"stored": _kept_bytes(keeper)})
            before = after
    shutil.rmtree(ground)
    _summarise(report, by_kind)
    return report


def _count_ours(samples: Samples, subject: Subject, before: Bytes, after: Bytes) -> None:
    made = subject.checkpoint()
    content, directories = needed_bytes(before, after)
    samples.add(OURS, {"stored": made.stored_bytes, "journal": made.journal_bytes})
    samples.add("needed", {"zstd of changed files": content, "changed directories": directories})
    samples.add("allowed", {"stored": ALLOWED * content + DIRECTORY_BYTES * directories})


def needed_bytes(before: Bytes, after: Bytes) -> tuple[int, int]:
    """Of files whose bytes changed: their zstd -3; and in how many directories an entry did."""
    changed = {name for name in after if name not in before or before[name] != after[name]}
    gone = before.keys() - after.keys()
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    content = sum(len(compressor.compress(data)) for name in changed if (data := after[name]))
    directories = {os.path.dirname(name.rstrip("/")) for name in changed | gone}
    return content, len(directories)


def _read_all(path: Path) -> Bytes:
    found: Bytes = {}
    for above, directories, names in os.walk(path):
        inside = os.path.relpath(above, path)
        for name in directories:
            found[os.path.normpath(os.path.join(inside, name)) + "/"] = None
        for name in names:
            full = Path(above, name)
            data = full.read_bytes() if full.is_file() and not full.is_symlink() else None
            found[os.path.normpath(os.path.join(inside, name))] = data
    return found


class _Counter:
    """A file to write to that only counts."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Count."""
        self.size_bytes += len(data)
        return len(data)


def _tar_zst_bytes(path: Path) -> int:
    """What a compressed archive of everything takes."""
    counter = _Counter()
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    with (
        compressor.stream_writer(counter, closefd=False) as stream,  # type: ignore[arg-type]
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        archive.add(path, arcname=".")
    return counter.size_bytes


def _kept_bytes(keeper: Peer) -> int:
    had = keeper.stored_bytes()
    _keep(keeper)
    return keeper.stored_bytes() - had


def _keep(keeper: Peer) -> None:
    """What would be done at every turn."""
    if isinstance(keeper, Git):
        keeper.commit()
    else:
        keeper.snapshot()


def _summarise(report: Report, by_kind: dict[str, Samples]) -> None:
    """Rows by kind of turn, then over all turns; the bars are over all."""
    total = Samples()
    for kind, samples in by_kind.items():
        report.add(kind, samples, "bytes")
        for (who, what), values in samples.items():
            for value in values:
                total.add(who, {what: value})
    report.add("all turns", total, "bytes")
    ours, allowed = total.get(OURS, "stored"), total.get("allowed", "stored")
    goal = "1.25 times zstd -3 of changed files and 4 KiB a changed directory"
    report.bars.append(Bar("all turns", "stored", goal, _in_all(ours, allowed)))
    for kind, samples in by_kind.items():
        ratio = _in_all(samples.get(OURS, "stored"), samples.get("allowed", "stored"))
        report.bars.append(Bar(kind, "stored", goal, ratio))
    for (who, what), values in total.items():
        if what == "stored" and who not in (OURS, "allowed"):
            ratio = _in_all(ours, values)
            report.bars.append(Bar("all turns", "stored", f"less than {who}", ratio))


def _in_all(cost: list[float], allowed: list[float]) -> Series:
    """One ratio: of the sums, as turns differ by orders of magnitude."""
    return Series((sum(cost) / max(1.0, sum(allowed)),))
