"""``crab label``: give a turn a name."""

from __future__ import annotations

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import LABEL, TARGET
from crabrt.cli.reports import dry_run_option
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.journal import RunRow
from crabrt.operations import naming


@verb(
    "label",
    examples=(
        "crab label last@12 before-the-rewrite",
        "crab label last@12 before-the-rewrite --dry-run",
        "crab label last before-the-rewrite --remove",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.argument("name", type=LABEL)
@click.option("--remove", is_flag=True, help="Take the label away from the run.")
@dry_run_option
def command(app: App, *, target: Target, name: str, remove: bool, dry_run: bool) -> Outcome:
    """Name a turn NAME; every command then knows it as RUN@NAME.

    A label is unique in its run: giving it again moves it. Labelled turns are kept by retention.
    Runs that are live may be labelled too. Without @TURN it is the latest turn. What was written is
    read back.
    """
    turn: int | None = None
    if remove:
        row = naming.unlabel(app.home, app.index, target, name, dry_run=dry_run)
    else:
        row, found = naming.label(app.home, app.index, target, name, dry_run=dry_run)
        turn = found.turn
    before = row.labels[name][0] if name in row.labels else None
    now = before if dry_run else _now(app, row, name)
    told = _would(row, name, before, turn) if dry_run else _done(row, name, before, turn, now)
    data = {"run": row.run, "turn": turn, "label": name, "before": before, "dry_run": dry_run}
    return Outcome(data, lambda out: out.lines(told))


def _now(app: App, row: RunRow, name: str) -> int | None:
    """The turn that has the label by now, as every command sees it; None: none has."""
    app.index.refresh()
    labels = app.index.run(row.run).labels
    return labels[name][0] if name in labels else None


def _would(row: RunRow, name: str, before: int | None, turn: int | None) -> list[str]:
    """What would be done."""
    run = row.run
    if turn is None:
        return [f"Would take the label {name} away from {run}@{before}.",
                "Nothing but labels and pins keeps a turn's files from retention."]  # fmt: skip
    if before == turn:
        return [f"{run}@{turn} is {run}@{name} already: nothing would change."]
    told = [f"Would label {run}@{turn}: every command then knows it as {run}@{name}.",
            "Retention keeps the files of a labelled turn."]  # fmt: skip
    if before is not None:
        told.insert(1, f"{name} is {run}@{before} now, which loses that label: it moves.")
    return told


def _done(
    row: RunRow, name: str, before: int | None, turn: int | None, now: int | None
) -> list[str]:
    """What was done, and what was read back."""
    run = row.run
    if turn is None:
        told = f"{run} has no label {name} any more."
    else:
        moved = "" if before in {None, turn} else f" (until now it was @{before})"
        told = f"{run}@{turn} is now {run}@{name}{moved}."
    if now == turn:
        return [told, "It was read back, and is so."]
    there = "taken away" if now is None else f"given to @{now}"
    return [told, f"Read back, it was {there} by somebody else meanwhile."]
