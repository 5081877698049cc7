"""What a benchmark found: rows of figures with their spread, bars, and who was absent. Values only.

A bar is a cost over what it may be, round by round; the median round decides, the best one stands
beside it, to tell noise from cost.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crabrt.errors import UsageError

OURS = "crabrt"
FLOOR = "floor"
"""Who did it, where it was plain calls that do only what cannot be avoided."""

Times = Mapping[str, float]
"""What one piece of work took: milliseconds (or bytes), by what was measured."""


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
        absent: peers, workspaces, observers that could not take part, and why.
        notes: what a reader of the figures has to know.
        wrong: what may never be: one of them, and the benchmark fails.
        command: what repeats it, as one would type it.
    """

    name: str
    machine: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    command: str = ""

    def add(self, scenario: str, samples: Samples, unit: str = "ms") -> None:
        """A row for everything in `samples`."""
        for (who, what), values in samples.items():
            self.rows.append(Row(scenario, what, who, unit, Series(tuple(values))))

    def count(self, scenario: str, what: str, who: str, value: float, unit: str) -> None:
        """A row of one value."""
        self.rows.append(Row(scenario, what, who, unit, Series((value,))))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Report:
        """The report that `data` gave.

        Raises:
            UsageError: it is something else.
        """
        try:
            report = cls(data["name"], data["machine"], data["settings"], command=data["command"])
            for row in data["rows"]:
                series = Series(tuple(map(float, row["values"])))
                report.rows.append(
                    Row(row["scenario"], row["what"], row["who"], row["unit"], series)
                )
            for bar in data["bars"]:
                ratio = Series(tuple(map(float, bar["ratio"]["values"])))
                report.bars.append(Bar(bar["scenario"], bar["what"], bar["goal"], ratio))
            report.absent, report.notes = dict(data["absent"]), list(data["notes"])
            report.wrong = list(data["wrong"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "that is no report of a benchmark",
                hint="crab bench NAME --json > FILE makes one",
            ) from error
        return report

    def data(self) -> dict[str, Any]:
        """For machines: JSON types only."""
        return {
            "name": self.name,
            "command": self.command,
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
            "notes": list(self.notes),
            "wrong": list(self.wrong),
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


def against(count: float, allowed: float) -> float:
    """A count over what is allowed; where nothing is, each counts double and so misses the bar."""
    return count / allowed if allowed else 2.0 * count


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are at most; 0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
