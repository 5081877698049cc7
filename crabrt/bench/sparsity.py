"""``crab bench sparsity``: how many turns change nothing, and whether every verdict is right.

Recorded runs are replayed on the workspaces they began on, without waits; generated ones do hostile
turns on several file systems. An oracle that shares no code with crabrt digests the state before
and after every turn. A change that a verdict does not tell of (a false "none") may not be, ever.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench.apart import WorkFailed, apart, environment
from crabrt.bench.harness import Progress, machine, observers_here, side_by_side
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.recorded import CannotMake, Grounds, Recorded, find_recorded
from crabrt.bench.report import Report
from crabrt.bench.sparsity_summary import Summary
from crabrt.errors import UsageError
from crabrt.testing.filesystems import LOCAL_KINDS, WATCHED_KINDS


@dataclass(frozen=True)
class SparsityOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        turns: generated turns, under each observer; 0: none.
        run_turns: how many of them make a run, with a seed of its own.
        seed: of the first run; the others count up.
        file_systems: names from `filesystems.KINDS`, taken in turn; under fanotify those that it
            cannot watch are left to the others, unless there is no other.
        observers: as in the configuration.
        traces: directories of recorded runs.
        only: parts of names of recorded runs; none: all.
        recorded_turns: only so many turns of each; None: all.
        workers: how many runs at once.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    turns: int = 20_000
    run_turns: int = 250
    seed: int = 1
    file_systems: tuple[str, ...] = LOCAL_KINDS
    observers: tuple[str, ...] = ("scan", "fanotify")
    traces: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    recorded_turns: int | None = None
    workers: int = 1
    keep: Path | None = None


def in_turn(number: int, kinds: tuple[str, ...], observer: str) -> str:
    """The file system of a run. Where fanotify cannot watch, it has one of the others."""
    kind = kinds[number % len(kinds)]
    if observer == "fanotify" and kind not in WATCHED_KINDS:
        watched = [one for one in kinds if one in WATCHED_KINDS] or [kind]
        kind = watched[number // len(kinds) % len(watched)]
    return kind


@dataclass(frozen=True)
class _Unit:
    """One run."""

    group: str
    key: str
    place: str
    work: Callable[[], Unit]


def measure_sparsity(
    options: SparsityOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        UsageError: `keep` is of other options; no observer can be had; there is nothing to run.
        NotFound: a directory holds no recorded runs.
    """
    settings = {
        "turns": options.turns,
        "run_turns": options.run_turns,
        "seed": options.seed,
        "file_systems": list(options.file_systems),
        "observers": list(options.observers),
        "recorded_turns": options.recorded_turns,
    }
    report = Report("sparsity", machine(options.scratch), settings)
    bench, summary = _Sparsity(options, environ, report), Summary(report)
    observers = bench.observers()
    units = [unit for name in observers for unit in bench.units(name)]
    if not units:
        raise UsageError("there is nothing to run", hint="--turns 1000, or --traces DIR")
    with Kept(options.keep, "sparsity", settings) as kept:
        done = side_by_side(units, lambda unit: kept.once(unit.key, unit.work), options.workers)
        for number, (unit, found) in enumerate(done, 1):
            progress(f"{number} of {len(units)} runs done: {unit.key}")
            summary.take(found, key=unit.key, group=unit.group, place=unit.place)
    summary.summarise()
    return report


class _Sparsity:
    """The units of one measurement."""

    def __init__(
        self, options: SparsityOptions, environ: Mapping[str, str], report: Report
    ) -> None:
        self._options, self._report = options, report
        self._environ = environment(environ, options.scratch)
        self._grounds = Grounds(options.scratch, self._environ)
        self._runs, absent = find_recorded(options.traces, options.only)
        if not options.only:
            report.absent.update(_grouped(absent))

    def observers(self) -> list[str]:
        """Those that work here."""
        found, absent = observers_here(self._options.observers)
        self._report.absent.update({f"observer {name}": why for name, why in absent.items()})
        return found

    def units(self, observer: str) -> list[_Unit]:
        """Everything to run under `observer`; what takes longest first."""
        options = self._options
        units = [self._recorded(run, observer) for run in self._runs]
        runs, rest = divmod(options.turns, options.run_turns)
        lengths = [options.run_turns] * runs + ([rest] if rest else [])
        for number, turns in enumerate(lengths):
            kind = in_turn(number, options.file_systems, observer)
            units.append(self._generated(options.seed + number, kind, turns, observer))
        return units

    def _generated(self, seed: int, kind: str, turns: int, observer: str) -> _Unit:
        key = f"seed {seed} on {kind}, {observer}"

        def work() -> Unit:
            home = self._home(key)
            arguments = {"seed": seed, "kind": kind, "turns": turns, "observer": observer}
            try:
                where = {"home": str(home)}
                return apart(
                    "crabrt.bench.judged:generated", arguments | where, self._environ
                ).result
            except WorkFailed as error:
                return {"failed": error.message, "missing": "Missing:" in error.message}
            finally:
                shutil.rmtree(home, ignore_errors=True)

        return _Unit(f"generated, {observer}", key, kind, work)

    def _recorded(self, run: Recorded, observer: str) -> _Unit:
        key = f"{run.name}, {observer}"

        def work() -> Unit:
            home = self._home(key)
            try:
                with self._grounds.workspace(run) as (workspace, seen):
                    arguments = {
                        "file": str(run.file),
                        "trajectory": run.trajectory,
                        "workspace": str(workspace),
                        "environ": seen,
                        "observer": observer,
                        "home": str(home),
                        "turns": self._options.recorded_turns,
                    }
                    return apart("crabrt.bench.judged:recorded", arguments, self._environ).result
            except CannotMake as error:
                return {"failed": error.message, "missing": True}
            except WorkFailed as error:
                return {"failed": error.message, "missing": False}
            finally:
                shutil.rmtree(home, ignore_errors=True)

        return _Unit(f"recorded, {'ours' if run.ours else 'others'}, {observer}", key, "here", work)

    def _home(self, key: str) -> Path:
        name = "".join(char if char.isalnum() else "-" for char in key)
        return self._options.scratch / f"store-{name}"


def _grouped(absent: Mapping[str, str]) -> dict[str, str]:
    """Many runs with one reason are one line."""
    counts = Counter(absent.values())
    return {f"{count} recorded runs": why for why, count in counts.items()}
