"""A trace run again: a scripted model that waits as the recorded one did, tools that really act.

The loop is an ordinary one on the public face (`crabrt.open_run`), or the same loop without crabrt,
to compare with. Calls of a turn run one after the other, in their order. Nothing here knows how a
verdict comes about; it only asks the journal, and the oracle.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crabrt.core.config import RUN_VARIABLE
from crabrt.core.ids import NAME_PATTERN, new_run_id
from crabrt.core.secrets import is_secret_name
from crabrt.errors import NotFound, UsageError
from crabrt.journal import TurnRow
from crabrt.process import orphans
from crabrt.process.orphans import find_orphans
from crabrt.runtime import Run, open_run
from crabrt.traces import actions
from crabrt.traces.hands import Hands, Outcome
from crabrt.traces.offline import OwnNetwork
from crabrt.traces.places import Places
from crabrt.traces.report import CallFacts, Judgement, ReplayReport, TurnFacts, judge
from crabrt.traces.schema import ModelCall, ToolCall, Trace, Turn
from crabrt.traces.watching import Boundaries

_REPLY_CHARS = 4_000


@dataclass(frozen=True)
class ReplayOptions:
    """How a trace is run again.

    Attributes:
        environ: what commands see: without crabrt's settings, without variables that are named like
            keys, and with a scratch directory for ``HOME``.
        speed: waits are divided by it; ``math.inf``: no waits.
        oracle: look at the workspace between turns, and compare.
        protected: under crabrt; False: the same loop without it.
        home: the store; None: as configured.
        config: further fields of `crabrt.Config` (``observer=``, ``exclude=``, ...).
        oracle_exclude: relative paths that the oracle leaves out (what `config` excludes).
        tools: further tools, name to one of ``actions.KINDS``.
        command_timeout_s: after which a command's process group is killed.
        offline: commands have no network (needs root).
        turns: only so many turns of the trace.
        between: called whenever a turn may have ended, before the next question.
        sleep: waits so many seconds.
    """

    environ: Mapping[str, str]
    speed: float = 1.0
    oracle: bool = False
    protected: bool = True
    home: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    oracle_exclude: Sequence[str] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    command_timeout_s: float = 60.0
    offline: bool = False
    turns: int | None = None
    between: Callable[[], object] | None = None
    sleep: Callable[[float], object] = time.sleep


@dataclass
class _Open:
    """A turn of the new run while it is made."""

    recorded: list[int] = field(default_factory=list)
    calls: list[CallFacts] = field(default_factory=list)
    wait_ms: float = 0.0
    wall_ms: float = 0.0


def replay(trace: Trace, workspace: Path, options: ReplayOptions) -> ReplayReport:
    """Run `trace` again in `workspace`, which should hold what the recorded one held at first.

    The workspace is changed by the trace's commands; under crabrt its first state is turn 0 of the
    new run, and can be restored.

    Raises:
        NotFound: there is no such workspace.
        UsageError: an option makes no sense here.
        CrabError: of crabrt itself, as for any run.
        OSError: the oracle cannot read part of the workspace.
    """
    if not options.speed > 0:
        raise UsageError("the speed must be above 0", hint="2 halves the waits, 0.5 doubles them")
    if not workspace.is_dir():
        raise NotFound(
            "there is no such directory",
            where=str(workspace),
            hint="make the workspace that the trace began on; docs/traces.md says how",
        )
    return _Replay(trace, workspace, options).perform()


class _Replay:
    """One replay, from its start to its report. One thread."""

    def __init__(self, trace: Trace, workspace: Path, options: ReplayOptions) -> None:
        self._trace, self._workspace, self._options = trace, workspace, options
        self._kinds = actions.tool_kinds(options.tools)
        self._turns: dict[int, _Open] = {}
        self._messages: list[dict[str, Any]] = [
            {"role": "user", "content": f"replay of {trace.header.id}"}
        ]
        self._unknown_waits = 0
        self._boundaries: Boundaries | None = None
        self._mark: str = new_run_id("replay")
        self._plain_turn = 0
        self._acted = False  # a tool was called since the last question
        self._called = False

    def perform(self) -> ReplayReport:
        options = self._options
        environ = _environment(options.environ)
        places = Places(self._trace.header.workspace, str(self._workspace))
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="crab-replay-"))
            prefix: tuple[str, ...] = ()
            if options.offline:
                prefix = stack.enter_context(OwnNetwork(environ)).prefix
            timeout_s = options.command_timeout_s
            self._hands = Hands(places, environ, home, timeout_s=timeout_s, prefix=prefix)
            if options.oracle:
                top, exclude = places.workspace, options.oracle_exclude
                self._boundaries = Boundaries(top, exclude, self._processes_live)
            stack.callback(lambda: orphans.stop(one.identity for one in find_orphans([self._mark])))
            started_s = self._working_s()
            lived = self._protected() if options.protected else self._unprotected()
            if self._boundaries is not None:
                self._boundaries.confirm()
            wall_s = self._working_s() - started_s
            left = tuple(orphan.command for orphan in find_orphans([self._mark]))
        return self._report(lived, wall_s, left)

    # -- the loop ----------------------------------------------------------------------------

    def _protected(self) -> _Lived:
        options = self._options
        given = dict(options.config)
        if options.home is not None:
            given["home"] = options.home
        name = given.pop("name", None) or _run_name(self._trace.header.id)
        started = time.perf_counter()
        with open_run(workspace=self._workspace, name=name, **given) as run:
            self._belongs_to(run.id)
            entered = time.perf_counter()
            self._loop(run)
            over = time.perf_counter()
        ended = time.perf_counter()
        rows = {row.turn: row for row in run.history()}
        return _Lived(run.id, rows, (entered - started) * 1e3, (ended - over) * 1e3)

    def _unprotected(self) -> _Lived:
        self._belongs_to(self._mark)
        self._loop(None)
        return _Lived("", {}, 0.0, 0.0)

    def _belongs_to(self, mark: str) -> None:
        """What is started from now on carries `mark`, so that what stays behind can be found."""
        self._mark = self._hands.environ[RUN_VARIABLE] = mark

    def _loop(self, run: Run | None) -> None:
        for turn in self._trace.turns[: self._options.turns]:
            self._play(run, turn)
        if self._options.between is not None:
            self._options.between()
        if self._boundaries is not None:
            self._boundaries.look()
            self._boundaries.ends(self._number(run))

    def _play(self, run: Run | None, turn: Turn) -> None:
        for model in turn.models:
            before = self._number(run)
            self._may_end(before)
            started_s = self._working_s()
            waited_ms = self._ask(run, model)
            if self._boundaries is not None and self._number(run) != before:
                self._boundaries.ends(before)
            self._note(run, turn, started_s).wait_ms += waited_ms
        for call in turn.tools:
            started_s = self._working_s()
            made = self._call(run, call)
            self._note(run, turn, started_s).calls.append(made)

    def _may_end(self, turn: int) -> None:
        """The question that comes next ends `turn`, if anything was done in it.

        A reply alone does so as long as no tool was called: the run may be one that wraps none.
        """
        if not (self._acted or (turn and not self._called)):
            return
        if self._options.between is not None:
            self._options.between()
        if self._boundaries is not None:
            self._boundaries.look()

    def _note(self, run: Run | None, turn: Turn, started_s: float) -> _Open:
        """The open turn of the new run, in which something of `turn` was done since then."""
        facts = self._turns.setdefault(self._number(run), _Open())
        if turn.turn not in facts.recorded:
            facts.recorded.append(turn.turn)
        facts.wall_ms += (self._working_s() - started_s) * 1e3
        return facts

    def _number(self, run: Run | None) -> int:
        return self._plain_turn if run is None else run.turn

    def _ask(self, run: Run | None, model: ModelCall) -> float:
        """Ask the scripted model; how long it took to answer, in ms."""
        waited_ms = 0.0

        def answer() -> dict[str, Any]:
            nonlocal waited_ms
            started = time.perf_counter()
            if model.wait_ms is not None:
                self._options.sleep(max(0.0, model.wait_ms) / 1e3 / self._options.speed)
            waited_ms = (time.perf_counter() - started) * 1e3
            return _reply(model)

        self._unknown_waits += model.wait_ms is None
        if run is None:
            self._plain_turn += self._acted or not self._called
            self._acted = False
            reply = answer()
        else:
            request = {"messages": self._messages, "model": model.model}
            self._acted = False
            reply = run.model_call(request, answer, name=model.name)
        self._messages.append(reply)
        return waited_ms

    def _call(self, run: Run | None, call: ToolCall) -> CallFacts:
        action = actions.action_of(call, self._kinds)
        outcome = Outcome()

        def act() -> dict[str, Any]:
            nonlocal outcome
            if self._boundaries is not None:
                self._boundaries.confirm()
            outcome = self._hands.do(action)
            output = outcome.output or outcome.skipped
            return {"exit_code": outcome.exit_code, "output": output}

        started_s = self._working_s()
        result = act() if run is None else run.tool_call(call.name, call.arguments, act)
        spent_s = self._working_s() - started_s
        self._plain_turn += run is None and not self._plain_turn
        self._acted = self._called = True
        self._messages.append({"role": "tool", "content": str(result["output"])})
        return CallFacts(
            tool=call.name,
            action=type(action).__name__,
            duration_ms=spent_s * 1e3,
            recorded_exit=call.exit_code,
            exit_code=outcome.exit_code,
            skipped=outcome.skipped,
        )

    # -- facts -------------------------------------------------------------------------------

    def _processes_live(self) -> bool:
        return bool(find_orphans([self._mark]))

    def _working_s(self) -> float:
        """A clock that stands still while the oracle looks."""
        return time.perf_counter() - self._looking_s()

    def _looking_s(self) -> float:
        return 0.0 if self._boundaries is None else self._boundaries.spent_s

    def _report(self, lived: _Lived, wall_s: float, left: tuple[str, ...]) -> ReplayReport:
        baseline = lived.rows.get(0)
        return ReplayReport(
            trace=self._trace.header.id,
            run=lived.run,
            turns=tuple(self._facts(turn, lived.rows.get(turn)) for turn in sorted(self._turns)),
            wall_ms=wall_s * 1e3,
            enter_ms=lived.enter_ms,
            exit_ms=lived.exit_ms,
            baseline_exposed_ms=0.0 if baseline is None else baseline.exposed_ms,
            baseline_capture_ms=0.0 if baseline is None else baseline.capture_ms,
            oracle_ms=self._looking_s() * 1e3,
            unknown_waits=self._unknown_waits,
            left_processes=left,
        )

    def _facts(self, turn: int, row: TurnRow | None) -> TurnFacts:
        made = self._turns[turn]
        answers = {} if self._boundaries is None else self._boundaries.answers
        answer, difference = answers.get(turn, (None, ""))
        facts = TurnFacts(
            turn=turn,
            recorded=tuple(made.recorded),
            model_wait_ms=made.wait_ms,
            wall_ms=made.wall_ms,
            calls=tuple(made.calls),
            oracle=answer,
        )
        if row is None:
            return facts
        judgement = judge(row.verdict, answer)
        return replace(
            facts,
            verdict=row.verdict,
            evidence=row.evidence,
            judgement=judgement,
            difference=difference if judgement is Judgement.FALSE_NONE else "",
            exposed_ms=row.exposed_ms,
            scan_ms=row.scan_ms,
            capture_ms=row.capture_ms,
            durable_ms=row.durable_ms,
            bytes_stored=row.bytes_stored,
            checkpoint=str(row.protection),
            unprotected=row.unprotected,
        )


@dataclass(frozen=True)
class _Lived:
    """What is known of the new run when it is over."""

    run: str
    rows: Mapping[int, TurnRow]
    enter_ms: float
    exit_ms: float


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What commands see: what was given, without crabrt's own settings, and without keys."""
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith("CRAB_") or is_secret_name(name))
    }


def _run_name(text: str) -> str:
    """A legal run name out of a trace's id, which may be that of a run."""
    words = "-".join(NAME_PATTERN.findall(text)).removeprefix("replay-")
    name = re.sub(r"-[0-9a-f]{8}$", "", words)[:60]
    return f"replay-{name}" if name else "replay"


def _reply(model: ModelCall) -> dict[str, Any]:
    """The scripted model's message: what the recorded one said, as far as the trace has it."""
    reply = model.reply
    content = reply.get("content") if isinstance(reply, dict) else reply
    text = content if isinstance(content, str) else ""
    return {"role": "assistant", "content": text[:_REPLY_CHARS]}
