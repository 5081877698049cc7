"""``crab bench recovery``: agents with processes are killed at random moments, and go on.

Each task is run without crabrt first: what its calls give, and what its files and the answers of
its processes are after every turn. With crabrt, undisturbed, it must be the same. Then runs are
killed with all that they have started, resumed, and judged by that; beside `full`, with files alone
and with messages alone. And every turn of the undisturbed run is restored, in random order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench.apart import environment
from crabrt.bench.harness import Progress, machine
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.recovery_judging import MODES, Expected, expect
from crabrt.bench.recovery_kills import Crash
from crabrt.bench.recovery_rig import Rig, free_port
from crabrt.bench.recovery_turns import restore_turns
from crabrt.bench.report import FLOOR, OURS, Bar, Report, Samples, Series, against
from crabrt.core.config import Config
from crabrt.errors import UsageError
from crabrt.operations.alive import imaging
from crabrt.testing.tasks import TASKS, Task, search_path

FULL = "full"
_SHOWN = 3


@dataclass(frozen=True)
class RecoveryOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        tasks: names; none: all of them.
        modes: what is put back after a crash; names of `recovery_judging.MODES`.
        kills: runs that are killed, of each task in each mode.
        restores: turns that are restored, of each task at most.
        seed: of the moments, and of the order of restores.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    tasks: tuple[str, ...] = ()
    modes: tuple[str, ...] = tuple(MODES)
    kills: int = 10
    restores: int = 1_000
    seed: int = 1
    keep: Path | None = None


def measure_recovery(
    options: RecoveryOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        WorkFailed: a task does not end, or does not give the same at every run.
        UsageError: `keep` is of other options, or nothing of what is asked for can be done here.
    """
    names = list(options.tasks) or list(TASKS)
    settings = {
        "tasks": names,
        "modes": list(options.modes),
        "kills": options.kills,
        "restores": options.restores,
        "seed": options.seed,
    }
    report = Report("recovery", machine(options.scratch), settings)
    criu = {name: environ[name] for name in ("CRAB_CRIU", "XDG_DATA_HOME") if name in environ}
    seen = environment(environ, options.scratch) | criu
    modes = _modes(options.modes, seen, report)
    here = _here(names, environ, report)
    if not here or not modes:
        why = "; ".join(f"{name}: {reason}" for name, reason in report.absent.items())
        raise UsageError(f"nothing can be measured here: {why}")
    total = Totals()
    with Kept(options.keep, "recovery", settings) as kept:
        for task in here:
            bench = _Bench(options, task, modes, seen, progress)
            found = bench.measure(kept)
            _take(report, task.name, found, total)
    total.tell(report)
    return report


def _modes(names: Sequence[str], seen: Mapping[str, str], report: Report) -> list[str]:
    """Those of `names` that can be had here."""
    by = imaging(Config.from_env(environ=seen))
    if FULL in names and isinstance(by, str):
        report.absent[FULL] = by
    return [name for name in names if name not in report.absent]


def _here(names: Sequence[str], environ: Mapping[str, str], report: Report) -> list[Task]:
    """Those of the tasks whose programs are installed."""
    path = search_path(environ.get("PATH", ""))
    found = []
    for name in names:
        missing = TASKS[name].missing(path)
        if missing:
            report.absent[name] = f"not installed: {', '.join(missing)}"
        else:
            found.append(TASKS[name])
    return found


class _Bench:
    """One task: undisturbed, restored, killed."""

    def __init__(
        self,
        options: RecoveryOptions,
        task: Task,
        modes: Sequence[str],
        environ: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._options, self._task, self._modes = options, task, modes
        self._environ, self._progress = environ, progress
        self._rng = random.Random(f"{options.seed} {task.name}")  # noqa: S311  it has to repeat

    def measure(self, kept: Kept) -> dict[str, list[Unit]]:
        """Units by what they are of: ``undisturbed``, ``restores``, and the modes."""
        task, options = self._task, self._options
        ground = options.scratch / f"recovery-{task.name}"
        with Rig(ground, task, self._environ, free_port(self._rng)) as rig:

            def undisturbed() -> Unit:
                self._progress(f"{task.name}, undisturbed")
                expected = expect(rig)
                restored: Unit = {}
                if options.restores and FULL in self._modes:
                    self._progress(f"{task.name}, every turn")
                    restored = restore_turns(rig, expected, self._rng, options.restores)
                return {"expected": expected.data(), "restored": restored}

            first = kept.once(f"{task.name} undisturbed", undisturbed)
            expected = Expected.of(first["expected"])
            found: dict[str, list[Unit]] = {"undisturbed": [first]}
            for number in range(1, options.kills + 1):
                for mode in self._modes:
                    self._progress(f"{task.name}, {mode}, kill {number} of {options.kills}")
                    seed = f"{options.seed} {task.name} {mode} {number}"
                    crash = Crash(rig, expected, mode, seed)
                    unit = kept.once(f"{task.name} {mode} {number}", crash.measure)
                    found.setdefault(mode, []).append({**unit, "seed": seed})
            return found


class Totals:
    """Over all tasks, by mode."""

    def __init__(self) -> None:
        self._recovered: dict[str, int] = {}
        self._killed: dict[str, int] = {}
        self._took = Samples()

    def add(self, mode: str, units: Sequence[Unit]) -> int:
        """Take the kills of a task; how many of them were recovered from."""
        whole = sum(not unit["wrong"] for unit in units)
        self._recovered[mode] = self._recovered.get(mode, 0) + whole
        self._killed[mode] = self._killed.get(mode, 0) + len(units)
        for took_ms in _times(units):
            self._took.add(mode, {"time to recover": took_ms})
        return whole

    def tell(self, report: Report) -> None:
        """Rows, and the bar."""
        for mode, killed in self._killed.items():
            report.count("all tasks", f"recovered of {killed}", mode, self._recovered[mode], "runs")
        report.add("all tasks", self._took)
        if self._killed.get(FULL):
            lost = self._killed[FULL] - self._recovered[FULL]
            ratio = Series((against(lost, 0),))
            report.bars.append(Bar("all tasks", "full: not recovered", "none, ever", ratio))


def _times(units: Sequence[Unit]) -> list[float]:
    return [unit["took_ms"] for unit in units if unit["took_ms"] is not None]


def _take(report: Report, name: str, found: Mapping[str, list[Unit]], total: Totals) -> None:
    """Rows of one task."""
    (first,) = found["undisturbed"]
    expected, restored = first["expected"], first["restored"]
    report.wrong += [f"{name}, undisturbed: {text}" for text in expected["wrong"]]
    if restored:
        report.count(name, "turns restored", OURS, len(restored["turns"]), "turns")
        report.wrong += [f"{name}, restored, {text}" for text in restored["wrong"]]
    for mode in MODES:
        units = [unit for unit in found.get(mode, []) if "failed" not in unit]
        if units:
            whole = total.add(mode, units)
            report.count(name, f"recovered of {len(units)}", mode, whole, "runs")
            _tell(report, name, mode, [unit for unit in units if unit["wrong"]])
    samples = Samples()
    for mode in MODES:
        for took_ms in _times([unit for unit in found.get(mode, []) if "failed" not in unit]):
            samples.add(mode, {"time to recover": took_ms})
    samples.add(FLOOR, {"a start, to its first act": expected["to_act_s"] * 1e3})
    if restored:
        for took_ms in restored["took_ms"]:
            samples.add(OURS, {"crab restore of a turn": took_ms})
    report.add(name, samples)


def _tell(report: Report, name: str, mode: str, failed: Sequence[Unit]) -> None:
    """Say which runs were not recovered: all of them where that may never be."""
    lines = [
        f"{name}, {mode}, seed {unit['seed']!r}, killed after {unit['killed_s']} s"
        f"{' and again' if unit['again'] else ''}: {'; '.join(unit['wrong'])}"
        for unit in failed
    ]
    if mode == FULL:
        report.wrong += lines
    else:
        report.notes += lines[:1]
