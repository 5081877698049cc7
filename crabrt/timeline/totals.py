"""What turns come to: figures of a turn that add up, their sums, and series of them for plots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from crabrt.core.verdicts import Protection
from crabrt.journal.outside import DECLARED, suspects
from crabrt.journal.views import TurnView
from crabrt.timeline.rows import tool_time_ms


class Figures(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What of a turn adds up. Whole numbers, so that sums stay exact as turns come and change.

    Attributes:
        turns: 1 for a turn that is not the baseline.
        model_us, tool_us, exposed_us: how long the loop waited for models, tools ran (side by side
            counts once), and gates held the loop; microseconds.
        bytes_stored: added to the store.
        tokens_in, tokens_out, cost_nano: as reported; billionths of a dollar.
        added, changed, removed: files.
        effects: calls declared external.
        suspected: calls that were not, and were taken for external, or may be what was seen to
            reach the world (see `journal.outside`).
        unprotected: 1 if the turn lost protection.
        moves: what happened to the run meanwhile: resumes, rollbacks, ends.
    """

    turns: int = 0
    model_us: int = 0
    tool_us: int = 0
    exposed_us: int = 0
    bytes_stored: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_nano: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    effects: int = 0
    suspected: int = 0
    unprotected: int = 0
    moves: int = 0

    @classmethod
    def of(cls, view: TurnView) -> Figures:
        """The figures of a turn."""
        lost = bool(view.unprotected) or view.protection is Protection.UNPROTECTED
        waited_ms, cost_usd, tokens_in, tokens_out = 0.0, 0.0, 0, 0
        for model in view.models:  # once for all of them: a run has tens of thousands
            waited_ms += model.wait_ms
            cost_usd += model.cost_usd or 0.0
            tokens_in += model.tokens_in or 0
            tokens_out += model.tokens_out or 0
        declared, suspected = _outside(view)
        return cls(
            1 if view.turn else 0,
            _whole(waited_ms * 1e3),
            _whole(tool_time_ms(view) * 1e3),
            _whole(view.exposed_ms * 1e3),
            view.bytes_stored,
            tokens_in,
            tokens_out,
            _whole(cost_usd * 1e9),
            view.files_added,
            view.files_changed,
            view.files_removed,
            declared,
            suspected,
            int(lost),
            len(view.moves),
        )

    @classmethod
    def sum_of(cls, many: Iterable[Figures]) -> Figures:
        """What many come to."""
        columns = zip(*map(msgspec.structs.astuple, many), strict=True)
        return cls(*map(sum, columns))

    @property
    def model_ms(self) -> float:
        """How long the loop waited for models."""
        return self.model_us / 1e3

    @property
    def tool_ms(self) -> float:
        """How long tools ran."""
        return self.tool_us / 1e3

    @property
    def exposed_ms(self) -> float:
        """How long gates held the loop."""
        return self.exposed_us / 1e3

    @property
    def cost_usd(self) -> float:
        """What the model calls cost."""
        return self.cost_nano / 1e9

    def __add__(self, other: Figures) -> Figures:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Figures(*(one + two for one, two in pairs))

    def __sub__(self, other: Figures) -> Figures:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Figures(*(one - two for one, two in pairs))


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over the turns, in at most as many points as a plot has columns.

    Attributes:
        values: the points; each is the sum over the turns it stands for.
        per_point: how many turns a point stands for (the last one may stand for fewer).
    """

    values: tuple[float, ...]
    per_point: int


def series(values: Iterable[float], points: int) -> Series:
    """`values`, one a turn, summed into at most `points` of equal width."""
    every = list(values)
    width = max(1, -(-len(every) // max(1, points)))
    sums = tuple(sum(every[at : at + width]) for at in range(0, len(every), width))
    return Series(sums, width)


def _outside(view: TurnView) -> tuple[int, int]:
    """How many calls were declared external, and how many others may have been."""
    if not view.outside:
        return 0, 0
    known = [how for _, how in suspects(view)]
    declared = known.count(DECLARED)
    return declared, len(known) - declared


def _whole(amount: float) -> int:
    """The nearest whole number; 0 for what no clock or bill can have said (nan, infinity)."""
    return round(amount) if abs(amount) < 1e18 else 0
