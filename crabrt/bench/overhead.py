"""``crab bench overhead``: recorded runs with their waits; what protection adds to their time.

Every run is replayed as it is, under crabrt, and with a full copy at every turn, one after the
other in each round, each in a process of its own on a workspace put back before. Exposed is how
long gates held the loop; turn 0 stands apart: cold (a new store, pages forgotten), and warm (again
in the same store).

As root each of them has a new file system: ext4 gives no inode out again for some minutes after it
was freed, and looks at all of them whenever a file is created, so a program that comes after others
pays for what those removed (``recently_deleted`` in fs/ext4/ialloc.c).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench.apart import apart, environment
from crabrt.bench.exposure import PLAIN, PROTECTED, REGIMES
from crabrt.bench.harness import Progress, machine, observers_here, rotated
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.recorded import CannotMake, Grounds, Recorded, find_recorded
from crabrt.bench.report import Bar, Report, Row, Samples, Series, against, percentile
from crabrt.errors import NotFound
from crabrt.testing.filesystems import Missing, fresh_file_system

WALL_RATIO = 1.005
"""What a run may take under crabrt, with the waits as recorded, beside the same run without it."""

EXPOSED_P99_MS = 10.0

PASSED_MS = 0.05
"""A gate that nothing waits at is passed in less: that is no delay."""

_MIB = 1 << 20
_FILE_SYSTEM_BYTES = 32 << 30
"""Of the file system that each has; its image is sparse."""
_ALL = "all runs"


@dataclass(frozen=True)
class OverheadOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        traces: directories of recorded runs.
        only: parts of names of them; none: all.
        speed: waits are divided by it.
        repetitions: rounds; None: 1 where the waits are as recorded, else 5.
        turns: only so many turns of each; None: all.
        observer: as in the configuration.
        full_copy: whether the third regime runs, which takes a third of the time.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    traces: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    speed: float = 1.0
    repetitions: int | None = None
    turns: int | None = None
    observer: str = "auto"
    full_copy: bool = True
    keep: Path | None = None

    @property
    def regimes(self) -> tuple[str, ...]:
        """What each recorded run runs under."""
        return REGIMES if self.full_copy else (PLAIN, PROTECTED)

    @property
    def rounds(self) -> int:
        """How often everything runs."""
        return self.repetitions or (1 if self.speed <= 1 else 5)


def measure_overhead(
    options: OverheadOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Raises:
        WorkFailed: a worker gave an error.
        UsageError: `keep` is of other options, or the observer cannot be had here.
        NotFound: a directory has no recorded runs, or none of them can be run again here.
    """
    runs, absent = find_recorded(options.traces, options.only)
    own = _can_mount(options.scratch)
    settings = {
        "runs": [run.name for run in runs],
        "speed": options.speed,
        "repetitions": options.rounds,
        "turns": options.turns,
        "observer": options.observer,
        "regimes": options.regimes,
        "file systems": "a new one each" if own else "one",
    }
    observers_here([options.observer])
    report = Report("overhead", machine(options.scratch), settings)
    report.absent.update({} if options.only else absent)
    bench = _Overhead(options, environment(environ, options.scratch), progress, own=own)
    with Kept(options.keep, "overhead", settings) as kept:
        found: dict[str, list[dict[str, Unit]]] = {}
        for number in range(options.rounds):
            for run in runs:
                if run.name in report.absent:
                    continue
                try:
                    found.setdefault(run.name, []).append(bench.round(run, number, kept))
                except CannotMake as error:
                    report.absent[run.name] = error.message
    if not any(found.values()):
        why = next((f" ({name}: {why})" for name, why in report.absent.items()), "")
        raise NotFound(f"no recorded run can be run again here{why}", hint="--traces DIR")
    for name, rounds in found.items():
        _rows(report, name, rounds)
    _bars(report, options.speed, [rounds for rounds in found.values() if rounds])
    return report


class _Overhead:
    def __init__(
        self,
        options: OverheadOptions,
        environ: dict[str, str],
        progress: Progress,
        *,
        own: bool,
    ) -> None:
        self._options, self._environ, self._progress = options, environ, progress
        self._own = own
        self._point = options.scratch / "overhead"
        self._grounds = Grounds(options.scratch, environ, self._point)

    def round(self, run: Recorded, number: int, kept: Kept) -> dict[str, Unit]:
        """One recorded run under every regime."""
        found: dict[str, Unit] = {}
        for regime in rotated(self._options.regimes, number):
            self._progress(f"{run.name}, round {number + 1}: {regime}")
            key = f"{run.name} {number} {regime}"
            found[regime] = kept.once(key, lambda regime=regime: self._one(run, regime))  # type: ignore[misc]
        return found

    def _one(self, run: Recorded, regime: str) -> Unit:
        options = self._options
        home, archive = self._point / "store", self._point / "full.tar"
        with self._somewhere(), self._grounds.workspace(run) as (workspace, seen):
            arguments = {
                "regime": regime,
                "file": str(run.file),
                "trajectory": run.trajectory,
                "turns": options.turns,
                "workspace": str(workspace),
                "environ": seen,
                "home": str(home),
                "archive": str(archive),
                "speed": options.speed,
                "observer": options.observer,
            }
            try:
                return apart("crabrt.bench.exposure:replayed", arguments, self._environ).result
            finally:
                shutil.rmtree(home, ignore_errors=True)
                archive.unlink(missing_ok=True)

    @contextmanager
    def _somewhere(self) -> Iterator[None]:
        """Where nothing was before, as far as that can be had."""
        if self._own:
            with _new_file_system(self._options.scratch, self._point):
                yield
        else:
            self._point.mkdir(exist_ok=True)
            yield


def _new_file_system(scratch: Path, point: Path) -> AbstractContextManager[Path]:
    return fresh_file_system("ext4", scratch / "overhead.img", point, _FILE_SYSTEM_BYTES)


def _can_mount(scratch: Path) -> bool:
    try:
        with _new_file_system(scratch, scratch / "tried"):
            return True
    except Missing:
        return False


def _rows(report: Report, name: str, rounds: Sequence[Mapping[str, Unit]]) -> None:
    """What one recorded run took."""
    took, cpu, peak, zero = Samples(), Samples(), Samples(), Samples()
    for one in rounds:
        for regime, unit in one.items():
            took.add(regime, {"wall": unit["wall_ms"]})
            cpu.add(regime, {"CPU": unit["cpu_s"] * 1e3})
            peak.add(regime, {"memory": unit["peak_bytes"] / _MIB})
        ours, plain = one[PROTECTED], one[PLAIN]
        cpu.add(PROTECTED, {"CPU added": (ours["cpu_s"] - plain["cpu_s"]) * 1e3})
        added = ours["peak_bytes"] - plain["peak_bytes"]
        peak.add(PROTECTED, {"memory added": added / _MIB})
        for how in ("cold", "warm"):
            times = one[PROTECTED][how]
            zero.add(f"{PROTECTED}, {how}", {f"turn 0: {what}": ms for what, ms in times.items()})
    report.count(name, "turns", PLAIN, rounds[0][PLAIN]["turns"], "turns")
    report.count(name, "model waits", PLAIN, rounds[0][PLAIN]["wait_ms"], "ms")
    report.add(name, took)
    _exposed_rows(report, name, rounds)
    report.add(name, zero)
    report.add(name, cpu)
    report.add(name, peak, "MiB")
    for regime in _beside_plain(rounds):
        _ratio_row(report, name, regime, rounds)


def _exposed_rows(report: Report, name: str, rounds: Sequence[Mapping[str, Unit]]) -> None:
    exposed = [ms for one in rounds for ms in one[PROTECTED]["exposed_ms"]]
    for share, what in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        report.count(name, f"exposed {what}", PROTECTED, percentile(exposed, share), "ms")
    unprotected = sum(one[PROTECTED]["unprotected"] for one in rounds)
    report.count(name, "unprotected", PROTECTED, unprotected, "turns")


def _ratio_row(
    report: Report, name: str, regime: str, rounds: Sequence[Mapping[str, Unit]]
) -> None:
    series = Series(tuple(_ratio(rounds, regime)))
    report.rows.append(Row(name, "wall ratio to plain", regime, "x", series))


def _beside_plain(rounds: Sequence[Mapping[str, object]]) -> list[str]:
    return [regime for regime in REGIMES if regime != PLAIN and regime in rounds[0]]


def _ratio(rounds: Sequence[Mapping[str, Unit]], regime: str) -> list[float]:
    return [one[regime]["wall_ms"] / one[PLAIN]["wall_ms"] for one in rounds]


def _bars(report: Report, speed: float, runs: Sequence[Sequence[Mapping[str, Unit]]]) -> None:
    """Over all runs. The bar of the ratio is about the waits as recorded."""
    if not runs:
        return
    rounds = [
        {
            regime: {"wall_ms": sum(run[number][regime]["wall_ms"] for run in runs)}
            for regime in runs[0][number]
        }
        for number in range(len(runs[0]))
    ]
    for regime in _beside_plain(rounds):
        _ratio_row(report, _ALL, regime, rounds)
    everything = [one for run in runs for one in run]
    _exposed_rows(report, _ALL, everything)
    exposed = [ms for one in everything for ms in one[PROTECTED]["exposed_ms"]]
    held = sum(ms > PASSED_MS for ms in exposed)
    if speed <= 1:
        ratio = Series(tuple(value / WALL_RATIO for value in _ratio(rounds, PROTECTED)))
        report.bars.append(Bar(_ALL, "wall ratio", f"{WALL_RATIO:g} of the plain run", ratio))
    half = Series((against(held, len(exposed) / 2),))
    report.bars.append(Bar(_ALL, "exposed p50", f"0 (below {PASSED_MS:g} ms)", half))
    p99 = Series((percentile(exposed, 0.99) / EXPOSED_P99_MS,))
    report.bars.append(Bar(_ALL, "exposed p99", f"{EXPOSED_P99_MS:g} ms", p99))
