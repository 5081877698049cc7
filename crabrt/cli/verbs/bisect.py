"""``crab bisect``: find the turn that broke it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target, TurnRef, parse_turn
from crabrt.operations.bisecting import Finding, Trial, Tried, bisect
from crabrt.operations.targets import resolve, restorable_states

_STYLES = {Trial.GOOD: "green", Trial.BAD: "red", Trial.SKIP: "yellow"}


@verb(
    "bisect",
    examples=(
        "crab bisect last -- python -m pytest -q",
        "crab bisect last --from 3 --until 40 -- sh -c '! grep -rn breakpoint src'",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("run", type=RUN)
@click.argument("words", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
@click.option("--from", "first", metavar="TURN", help="The first turn to look at (default: 0).")
@click.option("--until", "last", metavar="TURN", help="The last turn to look at.")
@click.option("--workdir", type=click.Path(), metavar="DIR", help="Where turns are restored.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what CMD prints.")
def command(
    app: App,
    *,
    run: Target,
    words: tuple[str, ...],
    first: str | None,
    last: str | None,
    workdir: str | None,
    quiet: bool,
) -> Outcome:
    """Run CMD in restored copies of turns of RUN, halving, until the first bad turn is found.

    CMD runs in a temporary copy: exit 0 means good, 125 cannot be tested, any other up to 124 bad.
    The workspace itself is never touched. Exits with 3 when skipped turns hide which was the first.
    """
    row = app.index.find(run.run)
    states = restorable_states(app.index, row, _turn(app, run, first), _turn(app, run, last))

    def told(tried: Tried, candidates: int) -> None:
        if not app.json:
            word = app.err.style(str(tried.trial), _STYLES[tried.trial])
            app.err.line(f"turn {tried.turn}: {word} (of {candidates} different states)")
            app.err.flush()

    finding = bisect(
        app.store,
        states,
        words,
        output=subprocess.DEVNULL if quiet or app.json else sys.stderr.buffer,
        told=told,
        workdir=None if workdir is None else Path(workdir),
    )
    hidden = len(finding.suspects) > 1
    return Outcome(
        _data(row.run, finding),
        lambda out: _show(out, row.run, finding),
        Exit.INCOMPLETE if hidden else Exit.DONE,
    )


def _turn(app: App, run: Target, text: str | None) -> int | None:
    if text is None:
        return None
    ref: TurnRef = parse_turn(text)
    return resolve(app.index, Target(run.run, ref)).turn


def _show(out: Screen, run: str, finding: Finding) -> None:
    if finding.first_bad is None:
        good = finding.last_good
        out.line("No state could be tested." if good is None else f"Still good at {run}@{good}.")
    elif finding.last_good is None:
        out.line(f"Bad from the first state on: {run}@{finding.first_bad}.")
        out.line("If a later turn was good, begin there: --from TURN")
    elif len(finding.suspects) > 1:
        names = ", ".join(f"@{turn}" for turn in finding.suspects)
        out.line(f"One of these turns broke it (some could not be tested): {names}")
    else:
        out.line(out.style(f"{run}@{finding.first_bad} broke it.", "bold"))
        out.line(f"What it did: crab show {run}@{finding.first_bad}")
        out.line(f"What changed: crab diff {run}@{finding.last_good} {run}@{finding.first_bad}")


def _data(run: str, finding: Finding) -> dict[str, Any]:
    return {
        "run": run,
        "first_bad": finding.first_bad,
        "last_good": finding.last_good,
        "suspects": list(finding.suspects),
        "tried": [
            {"turn": one.turn, "result": str(one.trial), "exit": one.exit_code}
            for one in finding.tried
        ],
    }
