"""Runs whose every verdict is judged by the oracle, each in a worker: generated, and recorded.

What a worker answers is a `Tally` as JSON types, with everything one needs to see a wrong verdict
again: seed, file system, turn, what was done, what really changed, what was said of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crabrt.bench.apart import Link
from crabrt.bench.causes import causes_of
from crabrt.core.entries import Checkpoint, Noted
from crabrt.core.ids import RunId
from crabrt.core.verdicts import NETWORK_TOO
from crabrt.journal import RunIndex, TurnRow, read_journal, run_dir
from crabrt.runtime import Run, open_run
from crabrt.store import Store
from crabrt.testing.filesystems import file_system
from crabrt.testing.hostile import HostileRun
from crabrt.traces import Judgement, OracleAnswer, ReplayOptions, read_trace, replay
from crabrt.traces.report import judge
from crabrt.traces.watching import Boundaries

GATE_LIMIT_MS = 120_000
"""Verdicts are judged here, not delays: no turn loses its protection to a busy machine."""

CACHES_ONLY = "caches only"
"""What evidence says of a turn that changed only what tools can make again."""

WRONG = (Judgement.FALSE_NONE, Judgement.FALSE_CHANGED)


@dataclass
class Tally:
    """Counts of turns.

    Attributes:
        turns: all of them.
        verdicts: by effect class; ``unknown`` where there is none.
        judgements: by what the oracle makes of it.
        oracle: by its answer.
        caches_only: turns whose evidence says so.
        wrong: each wrong verdict with its circumstances.
        observers: by who said where to look, as the checkpoints have it.
        missed: what an audit of an observer found that it had not told.
        unsupported: operations that this file system could not do, and its answer.
        causes: see `causes`, for recorded runs.
    """

    turns: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    judgements: Counter[str] = field(default_factory=Counter)
    oracle: Counter[str] = field(default_factory=Counter)
    caches_only: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)
    observers: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    unsupported: dict[str, str] = field(default_factory=dict)
    causes: dict[str, Any] = field(default_factory=dict)

    def turn(
        self, number: int, said: Said, answer: OracleAnswer, difference: str, did: str
    ) -> None:
        """Judge one turn."""
        judgement = judge(said.verdict, answer) or Judgement.UNDECIDED
        self.turns += 1
        self.verdicts.update(said.verdict or ("unknown",))
        self.judgements[judgement] += 1
        self.oracle[answer] += 1
        self.caches_only += any(CACHES_ONLY in line for line in said.evidence)
        if judgement in WRONG:
            case = {"turn": number, "judgement": str(judgement), "did": did}
            self.wrong.append({**case, **asdict(said), "difference": difference})

    def observed(self, home: Path, run: str) -> None:
        """Count who observed the turns of a run."""
        for record in read_journal(run_dir(home, RunId(run))):
            match record.body:
                case Checkpoint(inner=0, turn=turn, observer=observer) if turn:
                    # who watched the network beside is no matter here
                    self.observers[observer.removesuffix(NETWORK_TOO)] += 1
                case Noted(topic="observer", text=text):
                    self.missed.append(text)

    def data(self) -> dict[str, Any]:
        """JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class Said:
    """What crabrt says of a turn."""

    verdict: tuple[str, ...]
    evidence: tuple[str, ...]


def generated(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Hostile turns under crabrt. A `Work`.

    Args:
        arguments: ``seed``, ``kind`` of file system, ``turns``, ``observer``, ``home``.
        link: not needed.

    Raises:
        filesystems.Missing: the file system cannot be made here.
        CrabError: the observer is not allowed here.
    """
    del link
    tally, home = Tally(), Path(arguments["home"])
    with ExitStack() as stack:
        top = stack.enter_context(file_system(arguments["kind"]))
        hostile = HostileRun(arguments["seed"], top / "tree", outside=top / "outside")
        stack.enter_context(hostile)
        with open_run(
            workspace=top / "tree", home=home, name="hostile", **_config(arguments)
        ) as run:
            watched = _Watched(hostile)
            watched.live(run, arguments["turns"])
        watched.boundaries.confirm()
        tally.unsupported = hostile.unsupported
    tally.observed(home, run.id)
    for row in _rows(home, run.id):
        if row.turn:
            answer = watched.boundaries.answers.get(row.turn, (OracleAnswer.UNSTEADY, ""))
            tally.turn(row.turn, _said(row), *answer, watched.did.get(row.turn, ""))
    return tally.data()


class _Watched:
    """A loop whose one tool does hostile turns, with the oracle at the boundaries."""

    def __init__(self, hostile: HostileRun) -> None:
        self._hostile = hostile
        self.did: dict[int, str] = {}
        self.boundaries = Boundaries(hostile.root.decode(), (), lambda: bool(hostile.held()))

    def live(self, run: Run, turns: int) -> None:
        for number in range(turns):
            before = run.turn
            run.model_call([{"role": "user", "content": f"turn {number}"}], lambda: "go on")
            if run.turn != before:
                self.boundaries.ends(before)
            run.tool_call("hostile", {"number": number}, lambda: self._act(run))
            self.boundaries.look()
        self.boundaries.ends(run.turn)

    def _act(self, run: Run) -> str:
        self.boundaries.confirm()  # the gate has let this pass: the turn before is captured
        did = str(self._hostile.turn())
        self.did[run.turn] = did
        return did


def recorded(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """A recorded run, again, without waits. A `Work`.

    Args:
        arguments: ``file``, ``trajectory``, ``workspace``, ``environ`` of commands, ``observer``,
            ``home``, ``turns`` (None: all).
        link: not needed.
    """
    del link
    home = Path(arguments["home"])
    trace = read_trace(Path(arguments["file"]), trajectory=arguments["trajectory"])
    options = ReplayOptions(
        environ=arguments["environ"],
        speed=float("inf"),
        oracle=True,
        home=home,
        config=_config(arguments),
        turns=arguments["turns"],
    )
    report = replay(trace, Path(arguments["workspace"]), options)
    tally = Tally()
    for turn in report.turns:
        did = "; ".join(call.tool for call in turn.calls)
        answer = turn.oracle or OracleAnswer.UNSTEADY
        tally.turn(turn.turn, Said(turn.verdict, turn.evidence), answer, turn.difference, did)
    tally.observed(home, report.run)
    with Store.open(home) as store:
        tally.causes = causes_of(store, _rows(home, report.run)).data()
    return tally.data()


def _config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    limits = {"gate_limit_ms": GATE_LIMIT_MS, "baseline_gate_limit_ms": GATE_LIMIT_MS}
    return {"observer": arguments["observer"], "force": True, **limits}


def _rows(home: Path, run: str) -> Sequence[TurnRow]:
    with RunIndex.open(home) as index:
        index.refresh()
        return index.turns(run)


def _said(row: TurnRow) -> Said:
    return Said(row.verdict, row.evidence)
