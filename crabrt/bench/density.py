"""``crab bench density``: many agents at once on one host, in one store, beside as many without.

Each agent is a process with a tree of its own; one of several has 60,000 entries. Waits and numbers
of changed files are those of recorded runs. All begin at the same moment, which is the worst one:
every baseline is due at once. Therefore the first turn also stands apart.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench import trees
from crabrt.bench.apart import Finished, Worker, environment
from crabrt.bench.crowd import Step, steps_of
from crabrt.bench.exposure import PLAIN, PROTECTED
from crabrt.bench.harness import Progress, machine, observers_here, rotated, settle
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.recorded import find_recorded
from crabrt.bench.report import Bar, Report, Samples, Series, percentile
from crabrt.errors import NotFound
from crabrt.traces import read_trace

WALL_RATIO = 1.02
_BAR_AGENTS = 96
_SIZES = (200, 500, 1_000, 2_000)
_MIB = 1 << 20


@dataclass(frozen=True)
class DensityOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        traces: directories of recorded runs, for waits and changes.
        only: parts of names of them; none: all.
        agents: how many at once.
        turns: of each agent.
        speed: waits are divided by it.
        large_entries: size of the tree of one agent among several; 0: none is large.
        repetitions: rounds.
        seed: of the scripts and edits.
        observer: as in the configuration.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    traces: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    agents: tuple[int, ...] = (1, 8, 32, 96)
    turns: int = 20
    speed: float = 1.0
    large_entries: int = 60_000
    repetitions: int = 1
    seed: int = 1
    observer: str = "auto"
    keep: Path | None = None


def measure_density(
    options: DensityOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        NotFound: no recorded run tells waits.
        WorkFailed: an agent gave an error.
        UsageError: `keep` is of other options, or the observer cannot be had here.
    """
    settings = {
        "agents": list(options.agents),
        "turns": options.turns,
        "speed": options.speed,
        "large_entries": options.large_entries,
        "repetitions": options.repetitions,
        "seed": options.seed,
        "observer": options.observer,
    }
    observers_here([options.observer])
    report = Report("density", machine(options.scratch), settings)
    crowd = _Crowd(options, environment(environ, options.scratch), _scripts(options))
    with Kept(options.keep, "density", settings) as kept:
        for agents in options.agents:
            rounds: list[dict[str, Unit]] = []
            for number in range(options.repetitions):
                found: dict[str, Unit] = {}
                for regime in rotated((PLAIN, PROTECTED), number):
                    progress(f"{agents} agents, round {number + 1}: {regime}")
                    key = f"{agents} {number} {regime}"
                    found[regime] = kept.once(
                        key,
                        lambda agents=agents, regime=regime: crowd.live(agents, regime),  # type: ignore[misc]
                    )
                rounds.append(found)
            _rows(report, agents, rounds)
    return report


def _scripts(options: DensityOptions) -> list[list[Step]]:
    runs, _ = find_recorded(options.traces, options.only)
    scripts = [steps_of(read_trace(run.file, trajectory=run.trajectory)) for run in runs]
    told = [script for script in scripts if script]
    if not told:
        raise NotFound("no recorded run tells how long its model took", hint="--traces DIR")
    return told


class _Crowd:
    """Agents that live at the same time. Their trees are made once, for all rounds."""

    def __init__(
        self, options: DensityOptions, environ: dict[str, str], scripts: Sequence[Sequence[Step]]
    ) -> None:
        self._options, self._environ, self._scripts = options, environ, scripts
        self._rng = trees.seeded(options.seed)

    def live(self, agents: int, regime: str) -> Unit:
        """All of them, from the moment that every one is ready until the last has ended."""
        home = self._options.scratch / "shared-store"
        workers: list[Worker] = []
        try:
            for number in range(agents):
                arguments = self._arguments(number, home if regime == PROTECTED else None)
                workers.append(Worker("crabrt.bench.crowd:live", arguments, self._environ))
                if number % 4 == 3:  # a few at a time make their trees
                    workers[number].hear()
            for number, worker in enumerate(workers):
                if number % 4 != 3:
                    worker.hear()
            settle(self._options.scratch)
            for worker in workers:
                worker.tell("go")
            ended = [worker.finish() for worker in workers]
        finally:
            for worker in workers:
                worker.stop()
            shutil.rmtree(home, ignore_errors=True)
        return _summed(ended)

    def _arguments(self, number: int, home: Path | None) -> dict[str, object]:
        options = self._options
        script = self._scripts[number % len(self._scripts)]
        shift = trees.seeded(options.seed + number).randrange(len(script))
        steps = [script[(shift + turn) % len(script)] for turn in range(options.turns)]
        large = number == 1 and options.large_entries  # with one agent alone, there is no second
        return {
            "tree": str(options.scratch / f"tree-{number}"),
            "entries": options.large_entries if large else _SIZES[number % len(_SIZES)],
            "steps": steps,
            "speed": options.speed,
            "seed": options.seed + number,
            "home": None if home is None else str(home),
            "observer": options.observer,
        }


def _summed(ended: Sequence[Finished]) -> Unit:
    results = [one.result for one in ended]
    found: Unit = {
        "turns": sum(one["turns"] for one in results),
        "wall_s": max(one["wall_s"] for one in results),
        "each_s": [one["wall_s"] for one in results],
        "steady_s": sum(one["loop_s"] - one["first_s"] for one in results),
        "cpu_s": sum(one["cpu_s"] for one in results),
        "peak_bytes": [one.peak_bytes for one in ended],
    }
    if "exposed_ms" in results[0]:
        found["exposed_ms"] = [ms for one in results for ms in one["exposed_ms"]]
        found["baseline_ms"] = [one["baseline_ms"] for one in results]
        found["unprotected"] = sum(one["unprotected"] for one in results)
    return found


def _rows(report: Report, agents: int, rounds: Sequence[Mapping[str, Unit]]) -> None:
    scenario = f"{agents} agents" if agents > 1 else "1 agent"
    took, rates, memory = Samples(), Samples(), Samples()
    for one in rounds:
        for regime in (PLAIN, PROTECTED):
            unit = one[regime]
            took.add(regime, {"until the last ends": unit["wall_s"] * 1e3})
            took.add(regime, {"CPU, all": unit["cpu_s"] * 1e3})
            rates.add(regime, {"turns a second": unit["turns"] / unit["wall_s"]})
            memory.add(regime, {"memory, the largest": max(unit["peak_bytes"]) / _MIB})
    report.add(scenario, took)
    report.add(scenario, rates, "/s")
    report.add(scenario, memory, "MiB")
    for field, what in (("baseline_ms", "turn 0 exposed"), ("exposed_ms", "exposed")):
        values = [ms for one in rounds for ms in one[PROTECTED][field]]
        for share, name in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
            report.count(scenario, f"{what} {name}", PROTECTED, percentile(values, share), "ms")
    unprotected = sum(one[PROTECTED]["unprotected"] for one in rounds)
    report.count(scenario, "unprotected", PROTECTED, unprotected, "turns")
    _ratios(report, scenario, agents, rounds)


def _ratios(
    report: Report, scenario: str, agents: int, rounds: Sequence[Mapping[str, Unit]]
) -> None:
    """Sums over agents; steady is the loop from its second turn on."""
    found = Samples()
    for one in rounds:
        ours, plain = one[PROTECTED], one[PLAIN]
        each = sum(ours["each_s"]) / sum(plain["each_s"])
        steady = ours["steady_s"] / max(1e-9, plain["steady_s"])
        found.add(PROTECTED, {"wall ratio to plain": each, "wall ratio, steady": steady})
    report.add(scenario, found, "x")
    if agents >= _BAR_AGENTS:
        for what in ("wall ratio to plain", "wall ratio, steady"):
            ratio = Series(tuple(one / WALL_RATIO for one in found.get(PROTECTED, what)))
            report.bars.append(Bar(scenario, what, f"{WALL_RATIO:g}", ratio))
