"""What turns come to: when a prior was right, and when nobody can tell."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from crabrt.core.verdicts import NETWORK_TOO, Likely, Prior
from crabrt.operations.statistics import statistics_of


@dataclass
class Tool:
    name: str = "sh"
    prior: Prior = Prior.AUTO
    guess: Likely | None = Likely.EXTERNAL


@dataclass
class Turn:
    verdict: tuple[str, ...]
    observer: str = "scan" + NETWORK_TOO
    unobserved: tuple[str, ...] = ()
    tools: list[Any] = field(default_factory=lambda: [Tool()])
    turn: int = 1
    exposed_ms: float = 0.0


@pytest.mark.parametrize(
    ("turn", "right", "wrong"),
    [
        (Turn(("external",)), 1, 0),
        (Turn(("files", "external")), 1, 0),
        (Turn(("none",)), 0, 1),
        (Turn(("files",)), 0, 1),
        (Turn(("external",), observer="scan"), 0, 0),
        (Turn(("external",), unobserved=("network: events were lost",)), 0, 0),
        (Turn(("external",), tools=[Tool(), Tool("write", Prior.FILES, None)]), 0, 0),
        (Turn(("external",), tools=[Tool(prior=Prior.EXTERNAL, guess=None)]), 0, 0),
    ],
    ids=str,
)
def test_a_guess_of_external_is_judged_where_the_network_was_watched(turn, right, wrong):
    record = statistics_of([turn]).tools[0]
    assert (record.right, record.wrong) == (right, wrong)
