"""``crab undo``: undo the last restore of this workspace."""

from __future__ import annotations

import click

from crabrt.cli import amounts
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.reports import restored_exit, restored_json, show_restored
from crabrt.cli.safe_text import safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.operations.restoring import undo_restore
from crabrt.operations.standing import last_restore, workspace_above


@verb(
    "undo",
    examples=("crab undo", "crab undo --dry-run", "crab undo ~/project"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.REFUSED, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("workspace", type=click.Path(), default=".")
@click.option("--dry-run", is_flag=True, help="Say what would change; touch nothing.")
@click.option("--force", is_flag=True, help="Overwrite what was changed since that restore.")
def command(app: App, *, workspace: str, dry_run: bool, force: bool) -> Outcome:
    """Undo the last restore of WORKSPACE (default: the one around the current directory).

    It is a restore itself: undoing once more is a redo. Undo points are kept for 14 days.
    """
    index = app.index
    path = workspace_above(index, app.place(workspace))
    place = app.workspace(path)
    undone = last_restore(place, app.config.undo_keep_days)
    with app.progress("undoing the restore") as progress:
        done = undo_restore(
            index, app.writer, place, dry_run=dry_run, force=force, progress=progress
        )
    undoable = not dry_run and done.report.before is not None
    data = restored_json(done, None, "crab undo" if undoable else None)
    data["undone"] = None if undone is None else undone.label

    def text(out: Screen) -> None:
        before = "the last restore"
        if undone is not None:
            before = f"`{safe_text(undone.label)}` of {amounts.clock(undone.wall_ns)}"
        show_restored(out, done, f"what was there before {before}", force=force)
        if undoable:
            out.line("Redo it: crab undo")

    return Outcome(data, text, restored_exit(done.report, force=force))
