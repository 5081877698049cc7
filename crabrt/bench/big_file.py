"""One big file: how long a small change in it takes to capture, and how much memory the whole does.

The file is written by another process, and captured by a fresh one, so that neither its pages nor
what somebody else allocated count for it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crabrt.bench import trees
from crabrt.bench.apart import Link, apart, environment
from crabrt.bench.harness import timed
from crabrt.bench.report import OURS, Bar, Report, Samples, Series
from crabrt.bench.subject import Subject

MEMORY_MIB = 200.0
"""How much a capture may take above what the process had, whatever the size of the file."""

_NAME = "big.bin"
_CHANGE = 4096
_BLOCK = 16 << 20
_MIB = 1 << 20


def write_big(path: Path, size_bytes: int) -> trees.Tree:
    """A workspace of one file of noise."""
    path.mkdir(parents=True)
    left = size_bytes
    with open(path / _NAME, "wb") as file:
        while left:
            left -= file.write(os.urandom(min(left, _BLOCK)))
    return trees.Tree(path, (_NAME,), 1, size_bytes)


def overwrite(tree: trees.Tree, rng: random.Random) -> None:
    """A small change somewhere in it."""
    with open(tree.path / _NAME, "r+b") as file:
        file.seek(rng.randrange(max(1, tree.size_bytes - _CHANGE)))
        file.write(rng.randbytes(_CHANGE))


def measure_memory(
    report: Report, scratch: Path, size_bytes: int, repetitions: int, environ: Mapping[str, str]
) -> None:
    """Rows and a bar on the memory that a first capture and a later one of such a file take.

    Raises:
        WorkFailed: a worker gave an error.
    """
    ground = scratch / "memory"
    ground.mkdir()
    seen = environment(environ, ground)
    where = {"tree": str(ground / "tree"), "home": str(ground / "store"), "size": size_bytes}
    apart("crabrt.bench.big_file:written", where, seen)
    peaks, times = Samples(), Samples()
    for _ in range(repetitions):
        for what in ("first capture", "capture of 4 KiB changed"):
            done = apart("crabrt.bench.big_file:captured", where, seen)
            peaks.add(OURS, {f"memory, {what}": (done.peak_bytes - done.start_bytes) / _MIB})
            times.add(OURS, {what: done.result["took_ms"]})
        shutil.rmtree(ground / "store")
    shutil.rmtree(ground)
    scenario = f"one file of {size_bytes >> 20:,} MiB, captured by a fresh process"
    report.add(scenario, times)
    report.add(scenario, peaks, "MiB")
    for (_, what), values in peaks.items():
        ratio = Series(tuple(value / MEMORY_MIB for value in values))
        report.bars.append(Bar(scenario, what, f"{MEMORY_MIB:g} MiB above its start", ratio))


def written(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Write the file. A `Work`."""
    del link
    write_big(Path(arguments["tree"]), arguments["size"])
    return {}


def captured(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Capture it; if the store has a state of it, after a small change. A `Work`."""
    del link
    path, home = Path(arguments["tree"]), Path(arguments["home"])
    if home.exists():
        overwrite(trees.Tree(path, (_NAME,), 1, arguments["size"]), trees.seeded(1))
    with Subject(path, home) as subject:
        took_ms, made = timed(subject.checkpoint)
    return {"took_ms": took_ms, "stored_bytes": made.stored_bytes}
