"""``crab restore``: put the workspace, or some paths, back to a turn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import (
    dry_run_option,
    every_option,
    expect_option,
    restored_exit,
    restored_json,
    show_restored,
    skipped_text,
)
from crabrt.cli.screen import Screen
from crabrt.cli.starting_again import may_start, respawn_option
from crabrt.cli.talk import conversation_outcome
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.errors import NotFound, RestoreFailed, UsageError
from crabrt.journal import RunRow
from crabrt.operations.alive import imaging
from crabrt.operations.restoring import (
    Progress,
    Restored,
    restore_beside,
    restore_state,
    scoped_paths,
)
from crabrt.operations.targets import State, resolve
from crabrt.process.criu import Criu
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
    changes_workspace=True,
)
@click.argument("target", type=TARGET, metavar="RUN@TURN")
@click.argument("paths", nargs=-1, type=click.Path())
@dry_run_option
@every_option
@expect_option
@click.option("--to", "to", type=click.Path(), metavar="DIR", help="Make a copy in DIR instead.")
@click.option("--force", is_flag=True, help="Overwrite what somebody else changed (undoable).")
@respawn_option
@click.option("--files-only", is_flag=True, help="Only files: processes are left alone.")
@click.option(
    "--conversation-only", is_flag=True, help="Print the conversation up to there; touch no file."
)
def command(
    app: App,
    *,
    target: Target,
    paths: tuple[str, ...],
    dry_run: bool,
    every: bool,
    expect: str | None,
    to: str | None,
    force: bool,
    respawn: bool,
    files_only: bool,
    conversation_only: bool,
) -> Outcome:
    """Put the workspace, or only PATH..., back to the state of RUN@TURN.

    Only what differs is touched. What is there is checkpointed first: `crab undo` brings it back.
    Files that somebody changed since the run's last checkpoint are not overwritten (exit 5, they
    are listed) unless --force. A --dry-run gives an ID: with --expect ID, what it listed is done,
    or nothing (exit 5), if by now it would be something else. Processes that the run left running
    end, and those that ran at that turn come back where they were imaged; those without an image
    are started again from their recorded commands, if you allow it (--respawn, or the setting
    respawn). With PATH..., processes are left alone. What happened outside of this machine stays,
    and is listed.
    """
    if conversation_only and (to or paths or files_only):
        raise UsageError("--conversation-only touches no files: no paths, --to or --files-only")
    if respawn and (to is not None or paths or files_only or conversation_only):
        raise UsageError(
            "--respawn is for a restore of everything, in place",
            hint="leave out the paths, --to, --files-only and --conversation-only",
        )
    if to is not None and dry_run:
        raise UsageError("--dry-run is for a restore in place; --to makes a new directory")
    if expect is not None and (to is not None or conversation_only):
        raise UsageError("--expect is for a restore in place")
    state = resolve(app.index, target)
    if conversation_only:
        return conversation_outcome(app.store, state)
    given = [os.fsencode(path) for path in paths]
    workspace_path = state.run.workspace
    scope = scoped_paths(app.store, state, workspace_path, given, app.cwd)
    alone = to is not None or bool(scope) or files_only
    starts = not alone and may_start(app, state.processes, respawn=respawn, dry_run=dry_run)
    with app.progress(f"restoring {state.name}") as progress:
        if to is None:
            by = partial(imaging, app.config)
            done = _in_place(
                app, state, scope, dry_run=dry_run, force=force, progress=progress,
                say=progress.say, by=by, may_start=starts, expect=expect, files_only=files_only,
            )  # fmt: skip
        else:
            done = restore_beside(
                app.store, app.index, state, Path(to), paths=scope, force=force, progress=progress
            )
    undoable = to is None and not dry_run and done.report.before is not None
    data = {
        **restored_json(done, state.name, app.undo_anywhere(done.directory) if undoable else None),
        "skipped_turns": list(state.skipped),
    }

    def text(out: Screen) -> None:
        if (skipped := skipped_text(state)) is not None:
            out.paragraph(skipped)
        again = f"`{app.typed('restore', state.name)} --respawn` starts them again"
        undo = app.undo_of(workspace_path)
        show_restored(out, done, state.name, again=again, undo=undo, force=force, every=every)
        if undoable:
            out.line(f"Take it back: {undo}")

    return Outcome(data, text, restored_exit(done, force=force))


def _in_place(
    app: App,
    state: State,
    paths: Sequence[bytes],
    *,
    dry_run: bool,
    force: bool,
    progress: Progress,
    say: Callable[[str], None],
    by: Callable[[], Criu | str],
    may_start: bool,
    expect: str | None,
    files_only: bool,
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
            by=by,
            may_start=may_start,
            expect=expect,
            files_only=files_only,
            say=say,
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
