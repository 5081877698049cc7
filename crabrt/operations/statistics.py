"""What a run's turns come to: what they did, how often a tool's prior was right, what it cost.

A prior is what a tool was declared to do or, where nothing is declared, what its call was taken for
before it ran; a verdict is what its turn was seen to do. A turn speaks of a tool only if no other
can have done it: all its calls were of that tool with that prior, or it did nothing at all. A guess
of external is judged where the network was watched; what was declared external is so by definition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from crabrt.core.verdicts import NETWORK_TOO, Effect, Likely, Prior
from crabrt.journal import TurnRow

_JUDGED = {str(effect): effect for effect in (Effect.NONE, Effect.FILES, Effect.PROCESSES)}


@dataclass
class ToolRecord:
    """One tool under one prior.

    Attributes:
        name, prior: which.
        guess: what its calls were taken for, where nothing is declared; None: nobody guessed.
        calls: how many.
        observed: turns that speak of it, by what they did; one may have done several things.
        right, wrong: turns in which its prior was, and was not, what happened.
        unclear: turns with a verdict that do not speak of it.
    """

    name: str
    prior: Prior
    guess: Likely | None = None
    calls: int = 0
    observed: Counter[str] = field(default_factory=Counter)
    right: int = 0
    wrong: int = 0
    unclear: int = 0

    @property
    def share_right(self) -> float | None:
        """How often the prior was right, of the turns that can tell; None if there are none."""
        judged = self.right + self.wrong
        return self.right / judged if judged else None


@dataclass(frozen=True)
class Delays:
    """Milliseconds, over turns; None where there are no turns."""

    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    total_ms: float


@dataclass(frozen=True)
class Statistics:
    """A run's turns, or some of them.

    Attributes:
        turns: how many, without the baseline.
        judged: how many of them have a verdict.
        verdicts: turns by what they did; one may have done several things.
        tools: a record for each tool and prior, most calls first.
        exposed: how long turns held the loop back.
    """

    turns: int
    judged: int
    verdicts: dict[str, int]
    tools: tuple[ToolRecord, ...]
    exposed: Delays

    def share(self, verdict: str) -> float | None:
        """The share of `verdict` among the turns that have one; None if none has."""
        return self.verdicts.get(verdict, 0) / self.judged if self.judged else None


def statistics_of(turns: Iterable[TurnRow]) -> Statistics:
    """What `turns` of one run come to; the baseline, turn 0, is left out."""
    rows = [turn for turn in turns if turn.turn > 0]
    verdicts: Counter[str] = Counter({str(e): 0 for e in (Effect.NONE, Effect.FILES)})
    verdicts[str(Effect.EXTERNAL)] = 0
    tools: dict[_Key, ToolRecord] = {}
    for turn in rows:
        verdicts.update(turn.verdict)
        _count_tools(turn, tools)
    ranked = sorted(
        tools.values(), key=lambda one: (-one.calls, one.name, one.prior, one.guess or "")
    )
    exposed = sorted(turn.exposed_ms for turn in rows)
    delays = Delays(
        percentile(exposed, 50), percentile(exposed, 99), percentile(exposed, 100), sum(exposed)
    )
    judged = sum(bool(turn.verdict) for turn in rows)
    return Statistics(len(rows), judged, dict(verdicts), tuple(ranked), delays)


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """The smallest of the values that `percent` of them do not exceed (nearest rank)."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _expected(record: ToolRecord) -> Effect | None:
    """What its turns have to be seen to do for its prior to be right; None: nobody can tell."""
    if record.prior is not Prior.AUTO:
        return _JUDGED.get(str(record.prior))
    if record.guess is Likely.PROCESSES:  # a job in the background may well end with its turn
        return None
    return _JUDGED.get(str(record.guess))


def _was_watched(turn: TurnRow) -> bool:
    """Whether it is known what the turn reached on the network."""
    lost = any(what.startswith("network") for what in turn.unobserved)
    return turn.observer.endswith(NETWORK_TOO) and not lost


_Key = tuple[str, Prior, Likely | None]


def _count_tools(turn: TurnRow, tools: dict[_Key, ToolRecord]) -> None:
    used: set[_Key] = set()
    for tool in turn.tools:
        key = (tool.name, tool.prior, tool.guess)
        used.add(key)
        tools.setdefault(key, ToolRecord(*key)).calls += 1
    if not turn.verdict:
        return
    seen = set(turn.verdict) - {str(Effect.NONE), str(Effect.EXTERNAL)}
    for one in used:
        record = tools[one]
        if len(used) > 1 and seen:
            record.unclear += 1
            continue
        record.observed.update(turn.verdict if len(used) == 1 else [str(Effect.NONE)])
        if len(used) == 1 and record.guess is Likely.EXTERNAL and _was_watched(turn):
            reached = str(Effect.EXTERNAL) in turn.verdict
            record.right += reached
            record.wrong += not reached
        expected = _expected(record)
        if expected is not None:
            as_declared = (seen or {str(Effect.NONE)}) == {str(expected)}
            record.right += as_declared
            record.wrong += not as_declared
