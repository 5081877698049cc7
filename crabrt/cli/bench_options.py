"""From the options of ``crab bench`` to those of one benchmark: which it reads, with its defaults.

`BENCHES` is the table. An option that a benchmark does not read is refused there, not ignored: what
repeats a measurement names only what made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crabrt import bench
from crabrt.bench.recorded import own_directory
from crabrt.errors import UsageError
from crabrt.testing.filesystems import LOCAL_KINDS

Measure = Callable[[Callable[[str], None]], bench.Report]
"""Measures, and tells what is done now."""


class Given:
    """What the command line gives one benchmark.

    Args:
        name: of the benchmark.
        scratch: an existing directory to work in.
        values: of every option of the command, by the name of its parameter.
    """

    def __init__(self, name: str, scratch: Path, values: Mapping[str, Any]) -> None:
        self.name, self.scratch, self._values = name, scratch, values

    def __getitem__(self, parameter: str) -> Any:
        return self._values[parameter]

    def one(self, parameter: str, default: Any) -> Any:
        """The value of an option of which only other benchmarks take several.

        Raises:
            UsageError: there are several.
        """
        values = self[parameter]
        if len(values) > 1:
            raise UsageError(f"{self.name} takes one --{parameter}")
        return values[0] if values else default

    def some(self, parameter: str, counts: Sequence[int]) -> None:
        """Check that none of `counts` is 0.

        Raises:
            UsageError: one is, and nothing would be measured.
        """
        if 0 in counts:
            raise UsageError(f"{self.name} measures nothing with --{parameter} 0")

    @property
    def speed(self) -> float:
        """What divides the waits of models.

        Raises:
            UsageError: it is not above 0.
        """
        speed: float = self["speed"]
        if not speed > 0:
            raise UsageError("the speed must be above 0", hint="10: a tenth of the waits")
        return speed

    @property
    def traces(self) -> tuple[Path, ...]:
        """Directories of recorded runs: this project's own unless others are named."""
        own = own_directory()
        return self["traces"] or (() if own is None else (own,))


@dataclass(frozen=True)
class Bench:
    """A benchmark as the command line knows it.

    Attributes:
        about: what it measures, for the help.
        reads: names of the parameters that `prepare` reads.
        prepare: makes its options of what was given, and a measurement of those.
    """

    about: str
    reads: tuple[str, ...]
    prepare: Callable[[Given], Measure]


def _latency(given: Given) -> Measure:
    entries = given["entries"] or bench.LatencyOptions.entries
    options = bench.LatencyOptions(
        scratch=given.scratch,
        entries=tuple(count for count in entries if count),
        changed=given["changed"] or bench.LatencyOptions.changed,
        repetitions=given["repetitions"] or 5,
        peers=given["peers"],
        big_file_bytes=given["big_file"],
        elsewhere=given["elsewhere"],
        observer=given.one("observer", "scan"),
    )
    if not (options.entries or options.big_file_bytes):
        raise UsageError(
            "latency measures nothing with neither a tree nor a big file",
            hint="--entries 1000, or --big-file 1G",
        )
    return partial(bench.measure_latency, options, os.environ)


def _traffic(given: Given) -> Measure:
    options = bench.TrafficOptions(
        scratch=given.scratch,
        entries=given.one("entries", bench.TrafficOptions.entries),
        turns=given.one("turns", bench.TrafficOptions.turns),
        seed=given["seed"],
        peers=given["peers"],
        traces=given.traces if given["recorded"] else (),
        only=given["only"] if given["recorded"] else (),
        run_turns=given["run_turns"],
        keep=given["keep"],
    )
    given.some("entries", [options.entries])
    if not options.traces:
        given.some("turns", [options.turns])
    return partial(bench.measure_traffic, options, os.environ)


def _overhead(given: Given) -> Measure:
    options = bench.OverheadOptions(
        scratch=given.scratch,
        traces=given.traces,
        only=given["only"],
        speed=given.speed,
        repetitions=given["repetitions"],
        turns=given["run_turns"],
        observer=given.one("observer", "auto"),
        full_copy=given["full_copy"],
        keep=given["keep"],
    )
    return partial(bench.measure_overhead, options, os.environ)


def _density(given: Given) -> Measure:
    options = bench.DensityOptions(
        scratch=given.scratch,
        traces=given.traces,
        only=given["only"],
        agents=given["agents"] or bench.DensityOptions.agents,
        turns=given.one("turns", bench.DensityOptions.turns),
        speed=given.speed,
        large_entries=given["large_tree"],
        repetitions=given["repetitions"] or bench.DensityOptions.repetitions,
        seed=given["seed"],
        observer=given.one("observer", "auto"),
        keep=given["keep"],
    )
    given.some("turns", [options.turns])
    return partial(bench.measure_density, options, os.environ)


def _any_turn(given: Given) -> Measure:
    options = bench.AnyTurnOptions(
        scratch=given.scratch,
        turns=given["turns"] or bench.AnyTurnOptions.turns,
        seed=given["seed"],
        restores=given["restores"],
        repetitions=given["repetitions"] or 5,
        observer=given.one("observer", "auto"),
        keep=given["keep"],
    )
    given.some("turns", options.turns)
    given.some("restores", [options.restores])
    return partial(bench.measure_any_turn, options, os.environ)


def _tui(given: Given) -> Measure:
    options = bench.TuiOptions(
        scratch=given.scratch,
        turns=given.one("turns", bench.TuiOptions.turns),
        store_bytes=given["big_file"],
        repetitions=given["repetitions"] or 5,
    )
    given.some("turns", [options.turns])
    return partial(bench.measure_tui, options, os.environ)


def _recovery(given: Given) -> Measure:
    options = bench.RecoveryOptions(
        scratch=given.scratch,
        tasks=given["task"],
        modes=given["mode"] or bench.RecoveryOptions.modes,
        kills=given["kills"],
        restores=given["restores"],
        seed=given["seed"],
        keep=given["keep"],
    )
    return partial(bench.measure_recovery, options, os.environ)


def _mechanisms(given: Given) -> Measure:
    options = bench.MechanismsOptions(
        scratch=given.scratch,
        memory=given["memory"] or bench.MechanismsOptions.memory,
        disk=given["disk"] or bench.MechanismsOptions.disk,
        rows=given["rows"] or bench.MechanismsOptions.rows,
        repetitions=given["repetitions"] or 5,
        observer=given.one("observer", "auto"),
        keep=given["keep"],
    )
    return partial(bench.measure_mechanisms, options, os.environ)


def _sparsity(given: Given) -> Measure:
    options = bench.SparsityOptions(
        scratch=given.scratch,
        turns=given.one("turns", bench.SparsityOptions.turns),
        seed=given["seed"],
        file_systems=given["file_system"] or LOCAL_KINDS,
        observers=given["observer"] or bench.SparsityOptions.observers,
        traces=given.traces,
        only=given["only"],
        recorded_turns=given["run_turns"],
        workers=given["workers"] or os.cpu_count() or 1,
        keep=given["keep"],
    )
    return partial(bench.measure_sparsity, options, os.environ)


BENCHES: dict[str, Bench] = {
    "latency": Bench(
        "Checkpoints, restores, diffs and forks, beside floors and peers.",
        ("entries", "changed", "repetitions", "peers", "big_file", "elsewhere", "observer"),
        _latency,
    ),
    "traffic": Bench(
        "Bytes stored a turn, generated or recorded, beside peers.",
        ("entries", "turns", "seed", "peers", "recorded", "traces", "only", "run_turns", "keep"),
        _traffic,
    ),
    "overhead": Bench(
        "Recorded runs with their waits: plain, under crabrt, and with full copies.",
        (
            "traces", "only", "speed", "repetitions", "run_turns", "observer", "full_copy", "keep",
        ),
        _overhead,
    ),
    "density": Bench(
        "Many agents in one store.",
        (
            "traces", "only", "agents", "turns", "speed", "large_tree", "repetitions", "seed",
            "observer", "keep",
        ),
        _density,
    ),
    "any-turn": Bench(
        "Every turn of long runs restored and compared, and `crab log` of them.",
        ("turns", "seed", "restores", "repetitions", "observer", "keep"),
        _any_turn,
    ),
    "recovery": Bench(
        "Agents with servers, shells and databases, killed at random moments and resumed.",
        ("task", "mode", "kills", "restores", "seed", "keep"),
        _recovery,
    ),
    "mechanisms": Bench(
        "Snapshots and restores by replay, CRIU alone, commits, copies, git and crabrt.",
        ("memory", "disk", "rows", "repetitions", "observer", "keep"),
        _mechanisms,
    ),
    "sparsity": Bench(
        "How many turns change nothing, and whether every verdict is right.",
        (
            "turns", "seed", "file_system", "observer", "traces", "only", "run_turns", "workers",
            "keep",
        ),
        _sparsity,
    ),
    "tui": Bench(
        "`crab tui` in a terminal, on a long run and on one that goes on.",
        ("turns", "big_file", "repetitions"),
        _tui,
    ),
}  # fmt: skip
"""Each benchmark, by its name."""

EVERYWHERE = frozenset({"scratch"})
"""Parameters that every benchmark heeds."""


def readers(parameter: str) -> tuple[str, ...]:
    """The benchmarks that read a parameter; none for one that all heed, or that is not theirs."""
    return tuple(name for name, one in BENCHES.items() if parameter in one.reads)
