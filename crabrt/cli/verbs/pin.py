"""``crab pin``: keep a turn from retention."""

from __future__ import annotations

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.operations import naming


@verb(
    "pin",
    examples=("crab pin last@12", "crab pin last@12 --remove"),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.option("--remove", is_flag=True, help="Unpin it.")
def command(app: App, *, target: Target, remove: bool) -> Outcome:
    """Keep the files of a turn from `crab prune` and from the size cap, until it is unpinned."""
    row, turn = naming.pin(app.home, app.index, target, pinned=not remove)
    word = "no longer pinned" if remove else "pinned"
    return Outcome(
        {"run": row.run, "turn": turn, "pinned": not remove},
        lambda out: out.line(f"{row.run}@{turn} is {word}."),
    )
