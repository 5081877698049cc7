"""``crab replay``: a trace run again, its model scripted, its tools really at work."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, render_table
from crabrt.cli.verb import Outcome, verb
from crabrt.errors import UsageError
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text
from crabrt.traces import (
    OracleAnswer,
    ReplayOptions,
    ReplayReport,
    TurnFacts,
    read_trace,
    replay,
)

_COLUMNS = (
    Column("turn", right=True),
    Column("verdict"),
    Column("oracle"),
    Column("waited", right=True),
    Column("took", right=True),
    Column("exposed", right=True),
    Column("calls", flexible=True),
)
_SHOWN = 20


@verb(
    "replay",
    examples=(
        "crab replay fix.trace.jsonl --workspace ./copy --oracle",
        "crab replay fix.trace.jsonl --workspace ./copy --speed 10 --json > report.json",
        "crab replay calls.jsonl --trajectory NAME --workspace ./copy --speed inf",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("trace", type=click.Path(), metavar="TRACE")
@click.option(
    "--workspace",
    type=click.Path(file_okay=False),
    metavar="DIR",
    required=True,
    help="Where it runs: a copy of the tree that it began on. It is changed.",
)
@click.option("--speed", default=1.0, show_default=True, help="Divides the waits; inf: none.")
@click.option("--oracle", is_flag=True, help="Compare every verdict with digests of the workspace.")
@click.option("--trajectory", metavar="NAME", help="Which one, where the file holds several.")
@click.option("--turns", type=click.IntRange(min=1), help="Only so many turns.")
@click.option("--offline", is_flag=True, help="Commands have no network at all (needs root).")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True,
    metavar="SECONDS", help="A command is killed after so long.",
)  # fmt: skip
@click.option(
    "--tool",
    "tools",
    multiple=True,
    metavar="NAME=KIND",
    help="What a tool is: shell, write, edit, patch, read or nothing.",
)
@click.option("--plain", is_flag=True, help="Without crabrt: the same loop, to compare with.")
def command(app: App, *, trace: str, workspace: str, **given: Any) -> Outcome:
    """Run a trace again: the model scripted, with its recorded waits; the tools really act.

    Its commands are run, as you, on this machine: replay what you trust, or in a container. They
    get a scratch home directory. The replay is a run like any other: `crab log last` shows it, and
    `crab restore last@0` puts the workspace back.

    With --oracle every verdict is compared with digests taken before and after the turn; it exits
    with 1 if a turn that changed files was said to have changed none.
    """
    found = read_trace(Path(trace), trajectory=given["trajectory"])
    options = ReplayOptions(
        environ=os.environ,
        speed=_speed(given["speed"]),
        oracle=given["oracle"],
        protected=not given["plain"],
        home=app.home,
        tools=_tools(given["tools"]),
        command_timeout_s=given["timeout"],
        offline=given["offline"],
        turns=given["turns"],
    )
    with app.progress(f"replaying {safe_text(found.header.id)}"):
        report = replay(found, Path(workspace), options)
    code = Exit.DONE
    if report.skipped or any(turn.unprotected for turn in report.turns):
        code = Exit.INCOMPLETE
    if report.false_none:
        code = Exit.FAILED
    return Outcome(report.data(), lambda out: _print(out, report), code)


def _speed(speed: float) -> float:
    if math.isnan(speed) or speed <= 0:
        raise UsageError(
            "--speed must be above 0", hint="10 is ten times as fast, inf without waits"
        )
    return speed


def _tools(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, sign, kind in pairs:
        if not (name and sign and kind):
            raise UsageError(f"--tool {name!r} says no kind", hint="--tool NAME=KIND")
    return {name: kind for name, _, kind in pairs}


def _print(out: Screen, report: ReplayReport) -> None:
    out.lines(render_table(out, _COLUMNS, (_row(turn) for turn in report.turns)))
    out.line()
    counts = report.data()["counts"]
    shares = [
        f"{counts[f'verdict_{name}']} {name}"
        for name in ("none", "files", "processes", "external", "unknown")
        if counts[f"verdict_{name}"]
    ]
    out.line(f"{amounts.count(len(report.turns), 'turn')}: {', '.join(shares) or 'nothing judged'}")
    same, both = report.exit_agreement
    if both:
        out.line(f"exit codes as recorded: {same} of {both}")
    waited = sum(turn.model_wait_ms for turn in report.turns)
    took = f"took {amounts.duration(report.wall_ms)}, {amounts.duration(waited)} of it waits"
    if report.run:
        worst = max((turn.exposed_ms for turn in report.turns), default=0.0)
        took += f"; exposed at most {amounts.duration(worst)}"
        took += f"; run {safe_text(report.run)}"
    out.line(took)
    if report.unknown_waits:
        out.line(f"{amounts.count(report.unknown_waits, 'wait')} unknown: answered at once")
    _print_oracle(out, report)
    for turn, call in report.skipped[:_SHOWN]:
        out.line(
            out.style(f"not run: turn {turn}: {safe_text(call.tool)}: ", "yellow") + call.skipped
        )
    if len(report.skipped) > _SHOWN:
        out.line(f"  ... and {len(report.skipped) - _SHOWN} more (--json lists all)")
    for what in report.left_processes:
        out.line(f"outlived the loop, and was stopped: {safe_text(what)}")


def _print_oracle(out: Screen, report: ReplayReport) -> None:
    counts = report.data()["counts"]
    if all(turn.oracle is None for turn in report.turns):
        return
    out.line(
        f"oracle: {counts['right']} right, {counts['false_none']} false none, "
        f"{counts['false_changed']} false changed, {counts['undecided']} undecided "
        f"({amounts.duration(report.oracle_ms)})"
    )
    for turn in report.false_none:
        out.line(out.style(f"false none: turn {turn.turn}", "red", "bold"))
        out.lines(f"  {safe_text(line)}" for line in turn.difference.splitlines())
    for turn in report.false_changed:
        why = "; ".join(turn.evidence)
        out.line(out.style(f"false changed: turn {turn.turn}", "yellow") + f"  {safe_text(why)}")


def _row(turn: TurnFacts) -> list[Cell | str]:
    calls = [f"{call.tool}{_mark(call.exit_code, call.skipped)}" for call in turn.calls]
    oracle = "" if turn.oracle is None else str(turn.oracle)
    return [
        str(turn.turn),
        safe_text("+".join(turn.verdict)),
        Cell(oracle, ("yellow",) if turn.oracle is OracleAnswer.UNSTEADY else ()),
        amounts.duration(turn.model_wait_ms),
        amounts.duration(turn.wall_ms),
        amounts.duration(turn.exposed_ms),
        safe_text(", ".join(calls)),
    ]


def _mark(exit_code: int | None, skipped: str) -> str:
    return "?" if skipped else "!" if exit_code else ""
