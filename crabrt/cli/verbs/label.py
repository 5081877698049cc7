"""``crab label``: give a turn a name."""

from __future__ import annotations

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import LABEL, TARGET
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.journal import RunRow
from crabrt.operations import naming


@verb(
    "label",
    examples=(
        "crab label last@12 before-the-rewrite",
        "crab label last before-the-rewrite --remove",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.argument("name", type=LABEL)
@click.option("--remove", is_flag=True, help="Take the label away from the run.")
def command(app: App, *, target: Target, name: str, remove: bool) -> Outcome:
    """Name a turn NAME; every command then knows it as RUN@NAME.

    A label is unique in its run: giving it again moves it. Labelled turns are kept by retention.
    Runs that are live may be labelled too. Without @TURN it is the latest turn.
    """
    if remove:
        row = naming.unlabel(app.home, app.index, target, name)
        return Outcome(
            {"run": row.run, "turn": None, "label": name},
            lambda out: out.line(f"{row.run} has no label {name} any more."),
        )
    row, turn = naming.label(app.home, app.index, target, name)
    return Outcome(
        {"run": row.run, "turn": turn, "label": name},
        lambda out: out.line(f"{row.run}@{turn} is now {row.run}@{name}{_moved(row, name, turn)}."),
    )


def _moved(row: RunRow, name: str, turn: int) -> str:
    """Where the label was before, if that is somewhere else."""
    before = row.labels.get(name, (turn, 0))[0]
    return "" if before == turn else f" (until now it was @{before})"
