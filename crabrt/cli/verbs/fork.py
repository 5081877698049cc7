"""``crab fork``: a new run in a new workspace, from a turn."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import (
    dry_run_option,
    every_option,
    restored_exit,
    restored_json,
    show_restored,
    skipped_text,
)
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.ids import RunId
from crabrt.core.processes import ProcessState
from crabrt.core.targets import Target
from crabrt.inspector.lasting import shown
from crabrt.operations.alive import NOT_WANTED, imaging
from crabrt.operations.forking import PathRule, fork_preview, fork_to
from crabrt.operations.restoring import Restored
from crabrt.operations.targets import State, resolve
from crabrt.process.criu import Criu
from crabrt.process.revivals import Missing, Revival, not_imaged
from crabrt.timeline.safe_text import safe_text
from crabrt.workspace.restoring import RestoreReport


@verb(
    "fork",
    examples=(
        "crab fork last@9 --to ../another-try",
        "crab fork last@9 --to ../another-try --dry-run",
        "crab resume RUN   # as `fork` printed it",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.option(
    "--to", "to", type=click.Path(), metavar="DIR", required=True, help="The new workspace."
)
@click.option(
    "--paths",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="What to do when the conversation names the old workspace by its absolute path.",
)
@dry_run_option
@every_option
def command(
    app: App, *, target: Target, to: str, paths: PathRule, dry_run: bool, every: bool
) -> Outcome:
    """Make a new run in DIR that has the history of RUN up to TURN, and its files.

    DIR must be absent or empty. The run forked from stays as it is, and may even be live. A
    conversation that names the old workspace's absolute path is refused: the forked agent would go
    on editing the original.

    What was alive after TURN comes back when the fork is resumed or restored, and RUN's own
    processes go on: with process numbers of its own and, where somebody has its ports, a network of
    its own, and it finds DIR at the old workspace's path. That takes root and CRIU; what cannot
    come back is listed.
    """
    state = resolve(app.index, target)
    directory = Path(to).absolute()
    run, report, alive = _forked(app, state, directory, paths, dry_run=dry_run)
    by = imaging(app.config) if alive.trees else ""
    missing = _missing(alive, by)
    coming = [tree.top for tree in alive.trees if tree.top not in {one.top for one in missing}]
    done = Restored(report, None, (), os.fsencode(directory), Revival(missing=tuple(missing)))
    data = {
        "run": run,
        "parent": state.run.run,
        **restored_json(done, state.name, None),
        "skipped_turns": list(state.skipped),
        "processes_waiting": [one.pid for one in coming],
    }

    def text(out: Screen) -> None:
        if (skipped := skipped_text(state)) is not None:
            out.paragraph(skipped)
        out.lines(
            f"back when the fork is resumed or restored: {safe_text(shown(top))}" for top in coming
        )
        show_restored(out, done, state.name, every=every)
        if run is not None:
            out.line(f"New run: {run}")
            out.line(f"Go on in it: {app.typed('resume', run)}")

    return Outcome(data, text, restored_exit(done))


def _forked(
    app: App, state: State, directory: Path, paths: PathRule, *, dry_run: bool
) -> tuple[RunId | None, RestoreReport, ProcessState]:
    """The new run (none in a dry run), what its directory got, and what was alive."""
    if dry_run:
        return None, *fork_preview(app.store, state, directory, paths=paths)
    with app.progress(f"forking {state.name}") as progress:
        fork = fork_to(app.store, state, directory, paths=paths, progress=progress)
    return fork.run, fork.report, fork.alive


def _missing(alive: ProcessState, by: Criu | str) -> list[Missing]:
    """Who will not be back, unless that changes."""
    if by == NOT_WANTED:
        by = f"it is not looked after: {NOT_WANTED}"
    whys = [(tree.top, not_imaged(tree) or by) for tree in alive.trees]
    return [Missing(top, why) for top, why in whys if isinstance(why, str)]
