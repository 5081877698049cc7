"""What a task comes to where nothing disturbs it, and how a run that was killed differs from that.

Compared are what the calls gave, the files, and the journal: turns, and sealed calls. Answers of
processes are among the calls of the last turn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Self

from crabrt.bench.apart import WorkFailed
from crabrt.bench.recovery_rig import Rig
from crabrt.core.entries import CallId, Intent, Payload, Request, Response, Result
from crabrt.core.ids import RunId
from crabrt.errors import NotFound
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.testing.tasks.digesting import digest

MODES: Final[dict[str, dict[str, str]]] = {
    "full": {},
    "files": {"CRAB_PROCESSES": "off"},
    "chat": {"CRAB_DISABLE": "1"},
}
"""What is put back after a crash, by name, and what the agent's environment says for it.

``full``: files, processes and the conversation. ``files``: no processes. ``chat``: the conversation
alone, which the agent keeps itself; crabrt does nothing.
"""

WAIT_S: Final = 0.15
"""How long the scripted model thinks: captures and images are taken meanwhile."""

_SHOWN: Final = 160


@dataclass(frozen=True)
class Expected:
    """What a task comes to where nothing disturbs it.

    Attributes:
        said: what its calls give, in their order.
        answers: of its processes after each turn, turn 0 first.
        digests: of its files, likewise.
        journal: its turns and sealed calls as crabrt records them.
        took_s: how long it runs under crabrt, from the beginning of its loop to the end.
        to_act_s: how long a start takes until the first call acts.
        wrong: how the undisturbed run under crabrt differs from one without.
    """

    said: list[str]
    answers: list[list[str]]
    digests: list[str]
    journal: list[str]
    took_s: float
    to_act_s: float
    wrong: list[str]

    def data(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """What `data` gave."""
        return cls(**data)

    def differences(self, rig: Rig, said: list[str], *, journalled: bool) -> list[str]:
        """How a run that has ended differs, a line each."""
        found = lists_differ("call", self.said, said)
        if digest(rig.task, rig.workspace) != self.digests[-1]:
            found.append("the files at the end are others")
        if journalled:
            found += lists_differ("journal", self.journal, journal_of(rig))
        return found


def expect(rig: Rig) -> Expected:
    """Run a task undisturbed: without crabrt, twice, and with it.

    The last run and its processes are there afterwards.

    Raises:
        WorkFailed: it does not end well, or does not give the same twice.
    """
    plain = MODES["chat"]
    rig.fresh()
    seen = rig.finish(rig.agent("watched", env=plain)).result(f"{rig.task.name}, without crabrt,")
    rig.fresh()
    asked = rig.finish(rig.agent("watched", "--asks", env=plain)).result(f"{rig.task.name}, asked,")
    if seen["said"] != asked["said"]:
        told = lists_differ("call", seen["said"], asked["said"])
        raise WorkFailed(f"{rig.task.name} does not give the same twice: {told[0]}")
    rig.fresh()
    said = rig.finish(rig.agent("run", "--wait", str(WAIT_S))).result(
        f"{rig.task.name}, protected,"
    )
    begins, acts, ends = (rig.noted(what) or 0.0 for what in ("begins", "thinks", "ends"))
    wanted = Expected(
        said=seen["said"],
        answers=asked["after"],
        digests=seen["after"],
        journal=journal_of(rig),
        took_s=ends - begins,
        to_act_s=acts - rig.began,
        wrong=[],
    )
    wanted.wrong.extend(wanted.differences(rig, said, journalled=False))
    return wanted


def lists_differ(what: str, wanted: list[str], found: list[str]) -> list[str]:
    """The first difference, and how many more there are; nothing if there is none."""
    pairs = [*enumerate(zip_longest(wanted, found, fillvalue="nothing"))]
    wrong = [(number, one, other) for number, (one, other) in pairs if one != other]
    if not wrong:
        return []
    number, one, other = wrong[0]
    more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return [f"{what} {number}: {_short(other)} instead of {_short(one)}{more}"]


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def last_run(home: Path) -> RunId | None:
    """The newest run in a store; None where there is none."""
    if not home.is_dir():
        return None
    with RunIndex.open(home) as index:
        index.refresh()
        try:
            return RunId(index.find("last").run)
        except NotFound:
            return None


def journal_of(rig: Rig) -> list[str]:
    """The turns of the newest run, and its calls with what they were sealed with last.

    Raises:
        CrabError: it cannot be read.
    """
    run = last_run(rig.home)
    if run is None:
        return []
    turns: dict[CallId, int] = {}
    sealed: dict[CallId, str] = {}
    for record in read_journal(run_dir(rig.home, run)):
        body = record.body
        if isinstance(body, Request | Intent):
            turns[body.call] = record.entry.turn
        elif isinstance(body, Response | Result):
            failed = "" if body.failure is None else f" failed: {body.failure.message}"
            sealed[body.call] = f"{_payload(body.result)}{failed}"
    ordered = sorted(turns, key=lambda call: (turns[call], call))
    return [f"{turns[call]} {call}: {sealed.get(call, 'open')}" for call in ordered]


def _payload(payload: Payload) -> str:
    """What tells one result from another."""
    return repr(payload.inline if payload.content is None else payload.content)
