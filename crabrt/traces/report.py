"""What a replay found out, turn by turn. Values only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from crabrt.core.verdicts import Effect


class OracleAnswer(StrEnum):
    """What the oracle's digests say of a turn.

    ``same`` and ``changed`` are facts. ``unsteady``: something outside of the turn's calls wrote
    while its boundaries were looked at, so that nobody can tell whose change it was.
    """

    SAME = "same"
    CHANGED = "changed"
    UNSTEADY = "unsteady"


class Judgement(StrEnum):
    """A verdict beside the oracle's answer.

    ``false_none``: the files changed and the verdict does not say so. ``false_changed``: the other
    way round. ``undecided``: there is no verdict (the turn is unprotected), or no answer.
    """

    RIGHT = "right"
    FALSE_NONE = "false_none"
    FALSE_CHANGED = "false_changed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class CallFacts:
    """One call that was replayed.

    Attributes:
        tool: the recorded name.
        action: what it was taken for: ``Shell``, ``WriteFile``, ...
        duration_ms: how long it took now.
        recorded_exit, exit_code: then and now; None where there is none.
        skipped: why it was not done; empty where it was.
    """

    tool: str
    action: str
    duration_ms: float
    recorded_exit: int | None
    exit_code: int | None
    skipped: str = ""


@dataclass(frozen=True)
class TurnFacts:
    """One turn of the replay.

    Attributes:
        turn: its number in the new run.
        recorded: the turns of the trace that it was made of.
        model_wait_ms: how long the scripted model let the loop wait.
        wall_ms: from its first question to the end of its last call, the oracle's time apart.
        calls: what it did.
        verdict, evidence: of crabrt; empty in a replay without it, and where there is none.
        oracle: the answer, or None where it was not asked.
        judgement: verdict and answer compared, or None.
        difference: for a wrong verdict, what really changed.
        exposed_ms: how long gates held the loop because of its capture.
        scan_ms, capture_ms, durable_ms, bytes_stored, checkpoint: of its checkpoint.
        unprotected: why it lost protection, if it did.
    """

    turn: int
    recorded: tuple[int, ...]
    model_wait_ms: float
    wall_ms: float
    calls: tuple[CallFacts, ...]
    verdict: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    oracle: OracleAnswer | None = None
    judgement: Judgement | None = None
    difference: str = ""
    exposed_ms: float = 0.0
    scan_ms: float = 0.0
    capture_ms: float = 0.0
    durable_ms: float = 0.0
    bytes_stored: int = 0
    checkpoint: str = ""
    unprotected: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayReport:
    """A whole replay.

    Attributes:
        trace: id of what was replayed.
        run: id of the new run; empty in a replay without crabrt.
        turns: from turn 1.
        wall_ms: from opening the run to its end, the oracle's time apart.
        enter_ms: until the loop could begin.
        exit_ms: from the last call's end until the last checkpoint was durable.
        baseline_exposed_ms, baseline_capture_ms: of turn 0.
        oracle_ms: what the oracle took.
        unknown_waits: questions whose wait nobody recorded; they were answered at once.
        left_processes: commands of processes that outlived the loop and were stopped.
    """

    trace: str
    run: str
    turns: tuple[TurnFacts, ...]
    wall_ms: float
    enter_ms: float = 0.0
    exit_ms: float = 0.0
    baseline_exposed_ms: float = 0.0
    baseline_capture_ms: float = 0.0
    oracle_ms: float = 0.0
    unknown_waits: int = 0
    left_processes: tuple[str, ...] = field(default=())

    def judged(self, judgement: Judgement) -> tuple[TurnFacts, ...]:
        """The turns with that judgement."""
        return tuple(turn for turn in self.turns if turn.judgement == judgement)

    @property
    def false_none(self) -> tuple[TurnFacts, ...]:
        """Turns whose change was not seen: there may be none of them, ever."""
        return self.judged(Judgement.FALSE_NONE)

    @property
    def false_changed(self) -> tuple[TurnFacts, ...]:
        """Turns that are said to have changed files, and did not."""
        return self.judged(Judgement.FALSE_CHANGED)

    @property
    def skipped(self) -> tuple[tuple[int, CallFacts], ...]:
        """Calls that were not done, with their turns."""
        return tuple(
            (turn.turn, call) for turn in self.turns for call in turn.calls if call.skipped
        )

    @property
    def exit_agreement(self) -> tuple[int, int]:
        """Of calls with an exit code then and now: how many are equal, and how many there are."""
        both = [
            call.exit_code == call.recorded_exit
            for turn in self.turns
            for call in turn.calls
            if call.exit_code is not None and call.recorded_exit is not None
        ]
        return sum(both), len(both)

    def data(self) -> dict[str, Any]:
        """JSON types only."""
        same, both = self.exit_agreement
        return {
            **asdict(self),
            "counts": {
                "turns": len(self.turns),
                **_verdicts(self.turns),
                **{str(j): len(self.judged(j)) for j in Judgement},
                "oracle_unsteady": sum(t.oracle is OracleAnswer.UNSTEADY for t in self.turns),
                "calls": sum(len(turn.calls) for turn in self.turns),
                "calls_skipped": len(self.skipped),
                "exit_codes_compared": both,
                "exit_codes_equal": same,
            },
        }


def _verdicts(turns: Iterable[TurnFacts]) -> dict[str, int]:
    counts = dict.fromkeys((*map(str, Effect), "unknown"), 0)
    for turn in turns:
        for name in turn.verdict or ("unknown",):
            counts[name] = counts.get(name, 0) + 1
    return {f"verdict_{name}": count for name, count in counts.items()}


def judge(verdict: tuple[str, ...], answer: OracleAnswer | None) -> Judgement | None:
    """A verdict beside the oracle's answer; None where the oracle was not asked."""
    if answer is None:
        return None
    if not verdict or answer is OracleAnswer.UNSTEADY:
        return Judgement.UNDECIDED
    says, is_so = str(Effect.FILES) in verdict, answer is OracleAnswer.CHANGED
    if says == is_so:
        return Judgement.RIGHT
    return Judgement.FALSE_NONE if is_so else Judgement.FALSE_CHANGED
