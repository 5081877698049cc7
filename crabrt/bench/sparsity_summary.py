"""What the judged runs of `sparsity` come to: counts, shares, causes, and every wrong verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from crabrt.bench.causes import Causes, largest
from crabrt.bench.kept import Unit
from crabrt.bench.report import OURS, Bar, Report, Series, against
from crabrt.core.verdicts import Effect
from crabrt.traces import Judgement

FALSE_CHANGED = 0.001
"""How many of all turns may be said to have changed files and did not."""

_CAUSES = 8
_BY = "observed by "
_OF_OTHERS = "Crab (in containers, as root) reports 75 % of turns as none, 2.3 % false changed"


class Summary:
    """Adds up, and writes into a report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._sums: dict[str, Counter[str]] = {}
        self._causes: dict[str, Causes] = {}
        self._unsupported: dict[str, set[str]] = {}

    def take(self, found: Unit, *, key: str, group: str, place: str) -> None:
        """Add what a run found."""
        if "failed" in found:
            if found["missing"]:
                self._report.absent[key] = found["failed"]
            else:
                self._report.wrong.append(f"{key}: it could not be run: {found['failed']}")
            return
        sums = self._sums.setdefault(group, Counter())
        sums["turns"] += found["turns"]
        sums["caches only"] += found["caches_only"]
        for name in ("verdicts", "judgements", "oracle"):
            sums.update(found[name])
        sums.update({f"{_BY}{by}": turns for by, turns in found["observers"].items()})
        self._unsupported.setdefault(place, set()).update(found["unsupported"])
        sums["missed by the observer"] += len(found["missed"])
        if found["causes"]:
            self._causes.setdefault(group, Causes()).add(found["causes"])
        for case in found["wrong"]:
            told = f"{key}, turn {case['turn']}: {_case(case)}"
            false_none = case["judgement"] == Judgement.FALSE_NONE
            (self._report.wrong if false_none else self._report.notes).append(told)

    def summarise(self) -> None:
        """Rows and bars, by group and observer."""
        for group, sums in sorted(self._sums.items()):
            self._counts(group, sums)
        for group, causes in sorted(self._causes.items()):
            for kind, turns in largest(causes.turns, _CAUSES):
                self._report.count(f"{group}: causes by turns", kind, "changed", turns, "turns")
                alone = causes.alone[kind]
                self._report.count(f"{group}: causes by turns", kind, "and alone", alone, "turns")
            for kind, size in largest(causes.size_bytes, _CAUSES):
                self._report.count(f"{group}: causes by bytes", kind, "changed", size, "bytes")
        for place, operations in sorted(self._unsupported.items()):
            if operations:
                names = ", ".join(sorted(operations))
                self._report.notes.append(f"not possible on {place}, and left out there: {names}")
        self._report.notes.append(_OF_OTHERS)

    def _counts(self, group: str, sums: Counter[str]) -> None:
        turns = sums["turns"]
        self._report.count(group, "turns", OURS, turns, "turns")
        for what in (*map(str, Effect), "caches only", "unknown", *map(str, Judgement)):
            self._report.count(group, what, OURS, sums[what], "turns")
            self._report.count(group, what, "share", 100 * sums[what] / max(1, turns), "%")
        for what in sorted(name for name in sums if name.startswith(_BY)):
            self._report.count(group, what, OURS, sums[what], "turns")
        missed = "missed by the observer"
        self._report.count(group, missed, "its audit", sums[missed], "turns")
        goals = (
            (Judgement.FALSE_NONE, 0.0, "none of them, ever"),
            (Judgement.FALSE_CHANGED, FALSE_CHANGED * turns, "at most 0.1 % of the turns"),
        )
        for judgement, allowed, goal in goals:
            ratio = Series((against(sums[judgement], allowed),))
            self._report.bars.append(Bar(group, str(judgement), goal, ratio))


def _case(case: Mapping[str, Any]) -> str:
    said = ", ".join(case["verdict"]) or "nothing"
    changed = case["difference"] or "nothing"
    return f"{case['judgement']}: it said {said}; changed: {changed}; did: {case['did']}"
