"""``crab bench any-turn``: long runs, every turn of which comes back; early and late ones alike.

A run is made through the public API on a small tree, an oracle's digest kept for each turn. Then
turns are restored in random order, elsewhere and in place, and compared; and ``crab log`` lists
them all.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench import trees
from crabrt.bench.apart import Worker, environment
from crabrt.bench.harness import Progress, machine, observers_here
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.long_run import early_and_late
from crabrt.bench.report import FLOOR, OURS, Bar, Report, Samples, Series, against
from crabrt.bench.watched import watched

LOG_S = 2.0
"""How long ``crab log`` may take for 10,000 turns."""

FLAT = 1.1
"""A late turn may take as long as an early one, and a tenth; so may memory."""

_LOG_BAR_TURNS = 10_000
_ROUNDS = 5
_MIB = 1 << 20


@dataclass(frozen=True)
class AnyTurnOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        turns: lengths of runs; with several, memory is compared between the shortest and longest.
        entries: size of the tree.
        seed: of the turns, and of the order of restores.
        restores: at most so many turns of a run are restored elsewhere, a fifth as many in place.
        repetitions: of ``crab log``.
        observer: as in the configuration.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    turns: tuple[int, ...] = (1_000,)
    entries: int = 120
    seed: int = 1
    restores: int = 1_000
    repetitions: int = 5
    observer: str = "auto"
    keep: Path | None = None


def measure_any_turn(
    options: AnyTurnOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        WorkFailed: a worker gave an error.
        UsageError: `keep` is of other options, or the observer cannot be had here.
    """
    settings = {
        "turns": list(options.turns),
        "entries": options.entries,
        "seed": options.seed,
        "restores": options.restores,
        "repetitions": options.repetitions,
        "observer": options.observer,
    }
    observers_here([options.observer])
    report = Report("any-turn", machine(options.scratch), settings)
    seen = environment(environ, options.scratch)
    peaks: dict[int, list[float]] = {}
    with Kept(options.keep, "any-turn", settings) as kept:
        for turns in options.turns:
            bench = _Long(options, turns, seen, progress)
            found = kept.once(f"{turns} turns", bench.measure)
            _take(report, turns, found)
            peaks[turns] = found["log"]["peak MiB"]
    if len(peaks) > 1:
        ratio = [late / early / FLAT for early, late in zip(
            peaks[min(peaks)], peaks[max(peaks)], strict=True)]  # fmt: skip
        goal = f"as much as for {min(peaks):,} turns, and a tenth"
        scenario = f"{max(peaks):,} turns"
        report.bars.append(Bar(scenario, "memory of crab log", goal, Series(tuple(ratio))))
    return report


class _Long:
    """One run, made and restored."""

    def __init__(
        self, options: AnyTurnOptions, turns: int, environ: dict[str, str], progress: Progress
    ) -> None:
        self._options, self._turns = options, turns
        self._environ, self._progress = environ, progress
        self._ground = options.scratch / f"run-of-{turns}"
        self._rng = trees.seeded(options.seed + turns)

    def measure(self) -> Unit:
        """Make it, list it, restore it."""
        self._ground.mkdir()
        store, tree = self._ground / "store", self._ground / "tree"
        where: dict[str, object] = {"home": str(store), "tree": str(tree)}
        options = self._options
        given = {"entries": options.entries, "turns": self._turns, "seed": options.seed}
        lived = self._work("live", where | given | {"observer": options.observer})
        log = self._log(lived["run"], store)
        wanted = {"run": lived["run"], "digests": lived["digests"]}
        order = _sample(self._rng, range(self._turns + 1), options.restores)
        target: dict[str, object] = {"target": str(self._ground / "elsewhere"), "turns": order}
        elsewhere = self._work("elsewhere", where | wanted | target)
        digests = lived["digests"]
        moved = [turn for turn in range(self._turns) if digests[turn] != digests[turn + 1]]
        steps = _sample(self._rng, moved, max(2, options.restores // 5))
        in_place = self._work("in_place", where | wanted | {"turns": steps})
        shutil.rmtree(self._ground)
        return {
            "log": log,
            "unprotected": lived["unprotected"],
            "elsewhere": {"turns": order, **elsewhere},
            "in place": {"turns": steps, **in_place},
        }

    def _work(self, name: str, arguments: Mapping[str, object]) -> Unit:
        worker = Worker(f"crabrt.bench.long_run:{name}", arguments, self._environ)
        try:
            while "end" not in (message := worker.hear()):
                self._progress(", ".join(f"{key} {value}" for key, value in message.items()))
            found: Unit = message["end"]["result"]
        finally:
            worker.stop()
        return found

    def _log(self, run: str, home: Path) -> dict[str, list[float]]:
        """``crab log`` from no index, then as it is used; beside a command that does nothing."""
        crab = [sys.executable, "-m", "crabrt"]
        command = [*crab, "log", run, "--home", str(home)]
        found: dict[str, list[float]] = {
            "first s": [], "again s": [], "nothing s": [], "peak MiB": [], "first peak MiB": []
        }  # fmt: skip
        for _ in range(self._options.repetitions):
            for cache in home.glob("runs.sqlite*"):
                cache.unlink()
            first = watched(command, self._environ)
            again = watched(command, self._environ)
            nothing = watched([*crab, "--version"], self._environ)
            found["first s"].append(first.wall_s)
            found["again s"].append(again.wall_s)
            found["nothing s"].append(nothing.wall_s)
            found["peak MiB"].append(again.peak_bytes / _MIB)
            found["first peak MiB"].append(first.peak_bytes / _MIB)
        return found


def _sample(rng: random.Random, turns: Sequence[int], most: int) -> list[int]:
    return rng.sample(turns, min(most, len(turns)))


def _take(report: Report, turns: int, found: Unit) -> None:
    """Rows and bars of one run."""
    scenario = f"{turns:,} turns"
    _take_log(report, scenario, turns, found["log"])
    report.count(scenario, "unprotected", OURS, len(found["unprotected"]), "turns")
    for how in ("elsewhere", "in place"):
        part = found[how]
        restored = len(part["turns"]) * (2 if how == "in place" else 1)
        report.count(scenario, f"restored {how}", OURS, restored, "turns")
        report.count(scenario, f"mismatches {how}", OURS, len(part["wrong"]), "turns")
        ratio = Series((against(len(part["wrong"]), 0),))
        report.bars.append(Bar(scenario, f"mismatches {how}", "none of them, ever", ratio))
        if part["wrong"]:
            report.wrong.append(f"{scenario}, restored {how}: turns {part['wrong']} differ")
        _take_times(report, scenario, turns, f"restore {how}", part)


def _take_log(report: Report, scenario: str, turns: int, log: Mapping[str, list[float]]) -> None:
    samples = Samples()
    for what, key in (("crab log, index made anew", "first"), ("crab log", "again")):
        for value in log[f"{key} s"]:
            samples.add(OURS, {what: value * 1e3})
    for value in log["nothing s"]:
        samples.add(FLOOR, {"crab --version": value * 1e3})
    report.add(scenario, samples)
    peaks = Samples()
    for value in log["peak MiB"]:
        peaks.add(OURS, {"crab log, memory": value})
    for value in log["first peak MiB"]:
        peaks.add(OURS, {"crab log, memory, index made anew": value})
    report.add(scenario, peaks, "MiB")
    if turns >= _LOG_BAR_TURNS:
        ratio = Series(tuple(value / LOG_S for value in log["again s"]))
        report.bars.append(Bar(scenario, "crab log", f"{LOG_S:g} s", ratio))


def _take_times(report: Report, scenario: str, turns: int, what: str, part: Unit) -> None:
    """Early against late turns. They were restored in random order: five parts of it are rounds."""
    samples = Samples()
    ratios = []
    for shift in range(_ROUNDS):
        numbers, took_ms = part["turns"][shift::_ROUNDS], part["took_ms"][shift::_ROUNDS]
        early, late = early_and_late(numbers, took_ms, turns)
        if early:
            samples.add("first tenth", {what: early})
            samples.add("last tenth", {what: late})
            ratios.append(late / early / FLAT)
    report.add(scenario, samples)
    if ratios:
        goal = "a late turn as fast as an early one, and a tenth"
        report.bars.append(Bar(scenario, what, goal, Series(tuple(ratios))))
