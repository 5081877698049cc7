"""``crab rm``: delete runs."""

from __future__ import annotations

import os

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import runtime_directory
from crabrt.core.targets import Target
from crabrt.errors import UsageError
from crabrt.operations import naming
from crabrt.process.shell.leftovers import sweep
from crabrt.timeline.safe_text import safe_text


@verb(
    "rm",
    examples=("crab rm fixer-7f3a", "crab rm fixer-7f3a tester-02bc --yes && crab gc"),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also when relatives rely on its external effects.")
def command(app: App, *, runs: tuple[Target, ...], yes: bool, force: bool) -> Outcome:
    """Delete RUN...: journal, conversation, checkpoints. This cannot be undone.

    The workspace is not touched. Runs forked from it keep working. A live run is refused (exit 6).
    Disk space comes back with the next `crab gc`.
    """
    rows = {row.run: row for row in (app.index.find(target.run) for target in runs)}
    for row in rows.values():
        naming.refuse_if_live(app.home, row, "delete")
        needed = [] if force else naming.effects_needed_by_family(app.index, row)
        if needed:
            raise UsageError(
                "runs of its family could repeat external effects that only it has on record: "
                + ", ".join(needed[:5]),
                where=row.run,
                hint="--force deletes it all the same",
            )
    names = ", ".join(rows)
    app.confirm(f"Delete {safe_text(names)} for good?", yes=yes)
    for run in rows:
        naming.remove_run(app.home, run)
    sweep(os.fsencode(runtime_directory()))

    def text(out: Screen) -> None:
        out.line(f"Deleted {names}. Reclaim the space: crab gc")

    return Outcome({"deleted": list(rows)}, text)
