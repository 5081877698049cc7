"""``crab undo``: undo the last restore of this workspace."""

from __future__ import annotations

from functools import partial

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.reports import (
    dry_run_option,
    every_option,
    expect_option,
    restored_exit,
    restored_json,
    show_restored,
)
from crabrt.cli.screen import Screen
from crabrt.cli.starting_again import may_start, respawn_option
from crabrt.cli.verb import Outcome, verb
from crabrt.operations.alive import imaging
from crabrt.operations.restoring import undo_restore
from crabrt.operations.standing import last_restore, workspace_above
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text


@verb(
    "undo",
    examples=("crab undo", "crab undo --dry-run", "crab undo ~/project"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.REFUSED, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("workspace", type=click.Path(), default=".")
@dry_run_option
@every_option
@expect_option
@click.option("--force", is_flag=True, help="Overwrite what was changed since that restore.")
@respawn_option
def command(
    app: App,
    *,
    workspace: str,
    dry_run: bool,
    every: bool,
    expect: str | None,
    force: bool,
    respawn: bool,
) -> Outcome:
    """Undo the last restore of WORKSPACE (default: the one around the current directory).

    It is a restore itself: undoing once more is a redo. Undo points are kept for 14 days. With
    --expect ID, as a --dry-run gave it, that is undone which was looked at, or nothing.
    """
    index = app.index
    path = workspace_above(index, app.place(workspace))
    place = app.workspace(path)
    undone = last_restore(place, app.config.undo_keep_days)
    alive = None if undone is None else undone.alive_before
    starts = may_start(app, alive, respawn=respawn, dry_run=dry_run)
    with app.progress("undoing the restore") as progress:
        done = undo_restore(
            index,
            app.writer,
            place,
            dry_run=dry_run,
            force=force,
            progress=progress,
            by=partial(imaging, app.config),
            may_start=starts,
            expect=expect,
            say=progress.say,
        )
    undoable = not dry_run and done.report.before is not None
    data = restored_json(done, None, app.undo_anywhere(path) if undoable else None)
    data["undone"] = None if undone is None else undone.label

    def text(out: Screen) -> None:
        what = "the last restore"
        if undone is not None:
            what = f"`{safe_text(undone.label)}` of {amounts.clock(undone.wall_ns)}"
        undo = app.undo_of(path)
        again = f"`{undo} --respawn` {'starts' if dry_run else 'would have started'} them again"
        before = f"what was there before {what}"
        show_restored(out, done, before, again=again, undo=undo, force=force, every=every)
        if undoable:
            out.line(f"Redo it: {undo}")

    return Outcome(data, text, restored_exit(done, force=force))
