"""Measuring on a noisy machine: interleaved repetitions, medians with their spread, bars as ratios.

Both sides of a comparison run in the same round, and the order rotates from round to round, so that
whatever else the machine does hits them alike. Before each measured piece of work everything dirty
is written back, so that nobody pays for what another left behind. A bar is judged by the median of
the ratios within rounds; the best round stands beside it, to tell noise from cost.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from crabrt.workspace.restoring.sync import sync_file_system

T = TypeVar("T")

OURS = "crabrt"
FLOOR = "floor"
"""Who did it, where it was plain calls that do only what cannot be avoided."""

Times = Mapping[str, float]
"""What one piece of work took: milliseconds (or bytes), by what was measured."""

Case = Callable[[], Times]
Progress = Callable[[str], None]
"""Called with what is being done now."""


@dataclass(frozen=True)
class Series:
    """One figure, measured several times. Unit: of the row it is in."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest one."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest one."""
        return max(self.values)

    def data(self) -> dict[str, Any]:
        """For machines."""
        return {
            "median": round(self.median, 4),
            "min": round(self.low, 4),
            "max": round(self.high, 4),
            "values": [round(value, 4) for value in self.values],
        }


@dataclass(frozen=True)
class Row:
    """One line of a table: who needed how much for what."""

    scenario: str
    what: str
    who: str
    unit: str
    series: Series


@dataclass(frozen=True)
class Bar:
    """A goal: a cost and what it may be at most, compared round by round.

    Attributes:
        scenario, what: as in `Row`.
        goal: in words.
        ratio: cost / allowed, of each round; at most 1 meets the bar.
    """

    scenario: str
    what: str
    goal: str
    ratio: Series

    @property
    def met(self) -> bool:
        """Whether the median round kept within what is allowed."""
        return self.ratio.median <= 1.0


@dataclass
class Report:
    """Everything one benchmark found.

    Attributes:
        name: as in ``crab bench NAME``.
        machine: facts of it, in words.
        settings: what was run.
        rows, bars: in the order they were measured.
        absent: peers that could not take part, and why.
    """

    name: str
    machine: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, scenario: str, samples: Samples, unit: str = "ms") -> None:
        """A row for everything in `samples`."""
        for (who, what), values in samples.items():
            self.rows.append(Row(scenario, what, who, unit, Series(tuple(values))))

    def data(self) -> dict[str, Any]:
        """For machines: JSON types only."""
        return {
            "name": self.name,
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "rows": [
                {
                    "scenario": row.scenario,
                    "what": row.what,
                    "who": row.who,
                    "unit": row.unit,
                    **row.series.data(),
                }
                for row in self.rows
            ],
            "bars": [
                {
                    "scenario": bar.scenario,
                    "what": bar.what,
                    "goal": bar.goal,
                    "ratio": bar.ratio.data(),
                    "met": bar.met,
                }
                for bar in self.bars
            ],
            "absent": dict(self.absent),
        }


class Samples:
    """Figures as they come in, by who and what, in rounds."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, who: str, times: Times) -> None:
        """Note what one piece of work took."""
        for what, value in times.items():
            self._values[who, what].append(value)

    def items(self) -> list[tuple[tuple[str, str], list[float]]]:
        """All of them, in the order they first came."""
        return list(self._values.items())

    def has(self, who: str, what: str) -> bool:
        """Whether it was measured at all."""
        return (who, what) in self._values

    def get(self, who: str, what: str) -> list[float]:
        """The figures of each round.

        Raises:
            KeyError: it was never measured.
        """
        if not self.has(who, what):
            raise KeyError((who, what))
        return self._values[who, what]


def ratios(cost: Sequence[float], allowed: Sequence[float]) -> Series:
    """Round by round, a cost over what is allowed."""
    return Series(tuple(a / b for a, b in zip(cost, allowed, strict=True)))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How many ms `work` took, and what it returned."""
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1e3, result


def settle(directory: Path) -> None:
    """Write back everything dirty on the file system of `directory`: nobody pays for another."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


def interleave(
    cases: Mapping[str, Case], samples: Samples, round_number: int, directory: Path
) -> None:
    """One round: every case once, beginning with another one each time, `directory` settled."""
    names = list(cases)
    shift = round_number % len(names) if names else 0
    for name in names[shift:] + names[:shift]:
        settle(directory)
        samples.add(name, cases[name]())


def machine(directory: Path) -> dict[str, str]:
    """Facts of this machine, and of the file system that `directory` is on."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_kib = int(file.readline().split()[1])
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / (1 << 20):.0f} GiB",
        "kernel": platform.release(),
        "file system": _file_system(directory),
        "python": platform.python_version(),
    }


def _file_system(directory: Path) -> str:
    """The type of the mount that holds `directory`."""
    real = os.path.realpath(directory)
    best, kind = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, point, its_kind, *_ = line.split(" ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, its_kind
    return kind
