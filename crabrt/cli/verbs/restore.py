"""``crab restore``: put the workspace, or some paths, back to a turn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import restored_exit, restored_json, show_restored, skipped_text
from crabrt.cli.screen import Screen
from crabrt.cli.talk import conversation_outcome
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.errors import NotFound, RestoreFailed, UsageError
from crabrt.journal import RunRow
from crabrt.operations.restoring import (
    Progress,
    Restored,
    restore_beside,
    restore_state,
    scoped_paths,
)
from crabrt.operations.targets import State, resolve
from crabrt.workspace import Workspace


@verb(
    "restore",
    examples=(
        "crab restore last@9",
        "crab restore fixer-7f3a@before-the-risky-part src/ tests/test_app.py",
        "crab restore last@9 --dry-run",
        "crab restore last@9 --to /tmp/as-it-was",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.REFUSED, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--dry-run", is_flag=True, help="Say what would change; touch nothing.")
@click.option("--to", "to", type=click.Path(), metavar="DIR", help="Make a copy in DIR instead.")
@click.option("--force", is_flag=True, help="Overwrite what somebody else changed (undoable).")
@click.option("--files-only", is_flag=True, help="Only files (processes are not restored yet).")
@click.option(
    "--conversation-only", is_flag=True, help="Print the conversation up to there; touch no file."
)
def command(
    app: App,
    *,
    target: Target,
    paths: tuple[str, ...],
    dry_run: bool,
    to: str | None,
    force: bool,
    files_only: bool,
    conversation_only: bool,
) -> Outcome:
    """Put the workspace, or only PATH..., back to the state of RUN@TURN.

    Only what differs is touched. What is there is checkpointed first: `crab undo` brings it back.
    Files that somebody changed since the run's last checkpoint are not overwritten (exit 5, they
    are listed) unless --force. What happened outside of this machine stays, and is listed.
    """
    if conversation_only and (to or paths or files_only):
        raise UsageError("--conversation-only touches no files: no paths, --to or --files-only")
    if to is not None and dry_run:
        raise UsageError("--dry-run is for a restore in place; --to makes a new directory")
    state = resolve(app.index, target)
    if conversation_only:
        return conversation_outcome(app.store, state)
    given = [os.fsencode(path) for path in paths]
    workspace_path = state.run.workspace
    scope = scoped_paths(app.store, state, workspace_path, given, app.cwd)
    with app.progress(f"restoring {state.name}") as progress:
        if to is None:
            done = _in_place(app, state, scope, dry_run=dry_run, force=force, progress=progress)
        else:
            done = restore_beside(
                app.store, app.index, state, Path(to), paths=scope, force=force, progress=progress
            )
    undoable = to is None and not dry_run and done.report.before is not None
    data = {
        **restored_json(done, state.name, "crab undo" if undoable else None),
        "skipped_turns": list(state.skipped),
    }

    def text(out: Screen) -> None:
        if (skipped := skipped_text(state)) is not None:
            out.paragraph(skipped)
        show_restored(out, done, state.name, force=force)
        if undoable:
            out.line("Take it back: crab undo")

    return Outcome(data, text, restored_exit(done.report, force=force))


def _in_place(
    app: App,
    state: State,
    paths: Sequence[bytes],
    *,
    dry_run: bool,
    force: bool,
    progress: Progress,
) -> Restored:
    workspace = _workspace(app, state.run)
    with _elsewhere_instead():
        return restore_state(
            app.index,
            app.writer,
            workspace,
            state,
            paths=paths,
            dry_run=dry_run,
            force=force,
            progress=progress,
        )


@contextlib.contextmanager
def _elsewhere_instead() -> Iterator[None]:
    """A workspace that cannot be written does not keep its files from anybody: say how."""
    try:
        yield
    except RestoreFailed as error:
        hint = error.hint or "make the files elsewhere: --to DIR"
        raise RestoreFailed(error.message, where=error.where, hint=hint) from error


def _workspace(app: App, run: RunRow) -> Workspace:
    try:
        return app.workspace(run.workspace, run.view.exclude)
    except NotFound as error:
        raise NotFound(
            "the workspace is gone", where=error.where, hint="make the files elsewhere: --to DIR"
        ) from error
