"""What the rounds of one scenario of `mechanisms` found: times, bytes, counts, by who and what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crabrt.bench.kept import Unit
from crabrt.bench.report import Report, Samples

IMAGES = "images"
"""Unit of counts of images."""


@dataclass(frozen=True)
class Found:
    """Figures of one scenario.

    Attributes:
        times: in ms.
        stored: in bytes.
        images: how many were taken.
        wrong: what came back otherwise than it was.
    """

    times: Samples = field(default_factory=Samples)
    stored: Samples = field(default_factory=Samples)
    images: Samples = field(default_factory=Samples)

    wrong: list[str] = field(default_factory=list)

    def data(self) -> Unit:
        """For a file that holds what is done: JSON types."""
        return {
            **{name: _plain(samples) for name, samples in self._samples().items()},
            "wrong": self.wrong,
        }

    def add(self, unit: Mapping[str, Any]) -> None:
        """What `data` of a round gave."""
        for name, samples in self._samples().items():
            for who, what, values in unit[name]:
                for value in values:
                    samples.add(who, {what: value})
        self.wrong.extend(unit["wrong"])

    def _samples(self) -> dict[str, Samples]:
        return {"times": self.times, "stored": self.stored, "images": self.images}

    def tell(self, report: Report, scenario: str) -> None:
        """Rows of all of it."""
        report.add(scenario, self.times)
        report.add(scenario, self.stored, "bytes")
        report.add(scenario, self.images, IMAGES)
        report.wrong += [f"{scenario}: {text}" for text in self.wrong]


def _plain(samples: Samples) -> list[list[Any]]:
    return [[who, what, values] for (who, what), values in samples.items()]
