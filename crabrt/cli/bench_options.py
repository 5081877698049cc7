"""From the options of ``crab bench`` to those of one benchmark, with the defaults of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crabrt import bench
from crabrt.bench.recorded import own_directory
from crabrt.errors import UsageError
from crabrt.testing.filesystems import KINDS

Given = dict[str, Any]
Say = Callable[[str], None]


def _latency(scratch: Path, given: Given, say: Say) -> bench.Report:
    entries = given["entries"] or bench.LatencyOptions.entries
    options = bench.LatencyOptions(
        scratch=scratch,
        entries=tuple(count for count in entries if count),
        changed=given["changed"] or bench.LatencyOptions.changed,
        repetitions=given["repetitions"] or 5,
        peers=given["peers"],
        big_file_bytes=given["big_file"],
        elsewhere=given["elsewhere"],
        observer=_one(given, "observer", "scan"),
    )
    return bench.measure_latency(options, os.environ, say)


def _traffic(scratch: Path, given: Given, say: Say) -> bench.Report:
    options = bench.TrafficOptions(
        scratch=scratch,
        entries=_one(given, "entries", bench.TrafficOptions.entries),
        turns=_one(given, "turns", bench.TrafficOptions.turns),
        seed=given["seed"],
        peers=given["peers"],
    )
    return bench.measure_traffic(options, os.environ, say)


def _overhead(scratch: Path, given: Given, say: Say) -> bench.Report:
    options = bench.OverheadOptions(
        scratch=scratch,
        traces=_traces(given),
        only=given["only"],
        speed=_speed(given),
        repetitions=given["repetitions"],
        turns=given["run_turns"],
        observer=_one(given, "observer", "auto"),
        keep=given["keep"],
    )
    return bench.measure_overhead(options, os.environ, say)


def _density(scratch: Path, given: Given, say: Say) -> bench.Report:
    options = bench.DensityOptions(
        scratch=scratch,
        traces=_traces(given),
        only=given["only"],
        agents=given["agents"] or bench.DensityOptions.agents,
        turns=_one(given, "turns", bench.DensityOptions.turns),
        speed=_speed(given),
        large_entries=given["large_tree"],
        repetitions=given["repetitions"] or bench.DensityOptions.repetitions,
        seed=given["seed"],
        observer=_one(given, "observer", "auto"),
        keep=given["keep"],
    )
    return bench.measure_density(options, os.environ, say)


def _any_turn(scratch: Path, given: Given, say: Say) -> bench.Report:
    options = bench.AnyTurnOptions(
        scratch=scratch,
        turns=given["turns"] or bench.AnyTurnOptions.turns,
        seed=given["seed"],
        restores=given["restores"],
        repetitions=given["repetitions"] or 5,
        observer=_one(given, "observer", "auto"),
        keep=given["keep"],
    )
    return bench.measure_any_turn(options, os.environ, say)


def _sparsity(scratch: Path, given: Given, say: Say) -> bench.Report:
    options = bench.SparsityOptions(
        scratch=scratch,
        turns=_one(given, "turns", bench.SparsityOptions.turns),
        seed=given["seed"],
        file_systems=given["file_system"] or KINDS,
        observers=given["observer"] or bench.SparsityOptions.observers,
        traces=_traces(given),
        only=given["only"],
        recorded_turns=given["run_turns"],
        workers=given["workers"] or os.cpu_count() or 1,
        keep=given["keep"],
    )
    return bench.measure_sparsity(options, os.environ, say)


MEASURES: dict[str, Callable[[Path, Given, Say], bench.Report]] = {
    "latency": _latency,
    "traffic": _traffic,
    "overhead": _overhead,
    "density": _density,
    "any-turn": _any_turn,
    "sparsity": _sparsity,
}
"""Each benchmark, by its name."""


def _one(given: Given, option: str, default: Any) -> Any:
    """The value of an option that only some benchmarks take several of."""
    values = given[option]
    if len(values) > 1:
        raise UsageError(f"this benchmark takes one --{option}")
    return values[0] if values else default


def _speed(given: Given) -> float:
    speed: float = given["speed"]
    if not speed > 0:
        raise UsageError("the speed must be above 0", hint="10: a tenth of the waits")
    return speed


def _traces(given: Given) -> tuple[Path, ...]:
    own = own_directory()
    return given["traces"] or (() if own is None else (own,))
