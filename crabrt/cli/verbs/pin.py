"""``crab pin``: keep a turn from retention."""

from __future__ import annotations

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import dry_run_option
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target, TurnRef
from crabrt.journal import TurnRow
from crabrt.operations import naming


@verb(
    "pin",
    examples=("crab pin last@12", "crab pin last@12 --dry-run", "crab pin last@12 --remove"),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.option("--remove", is_flag=True, help="Unpin it.")
@dry_run_option
def command(app: App, *, target: Target, remove: bool, dry_run: bool) -> Outcome:
    """Keep the files of a turn from `crab prune` and from the size cap, until it is unpinned.

    What was written is read back.
    """
    pinned = not remove
    row, turn = naming.pin(app.home, app.index, target, pinned=pinned, dry_run=dry_run)
    name = f"{row.run}@{turn.turn}"
    if dry_run:
        told = _would(name, turn, pinned=pinned)
    else:
        app.index.refresh()
        now = app.index.turn(row.run, TurnRef(turn.turn)).pinned
        told = [
            f"{name} is {'pinned' if pinned else 'no longer pinned'}.",
            "It was read back, and is so."
            if now is pinned
            else "Read back, it is not: somebody else changed that meanwhile.",
        ]
    data = {"run": row.run, "turn": turn.turn, "pinned": pinned, "dry_run": dry_run}
    return Outcome(data, lambda out: out.lines(told))


def _would(name: str, turn: TurnRow, *, pinned: bool) -> list[str]:
    """What would be done."""
    if turn.pinned is pinned:
        return [f"{name} is {'pinned already' if pinned else 'not pinned'}: nothing would change."]
    if pinned:
        return [f"Would pin {name}.", "Retention then keeps its files, until it is unpinned."]
    kept = ", ".join(turn.labels)
    keeps = f"its label keeps them still: {kept}" if kept else "retention may give its files up"
    return [f"Would unpin {name}: {keeps}."]
