"""``crab resume``: restore, replay what is recorded, go on live."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import change_sign, show_more
from crabrt.cli.safe_text import path_fields, safe_path, safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import RESUME_VARIABLE
from crabrt.core.ids import RunId
from crabrt.core.targets import Target
from crabrt.errors import CrabError, NotFound
from crabrt.journal import read_journal, run_dir
from crabrt.operations.restoring import restore_state
from crabrt.operations.resuming import Command, resume_command
from crabrt.operations.targets import State
from crabrt.runtime.recovery import find_stop
from crabrt.runtime.resuming import disk_is_the_state, state_to_restore
from crabrt.workspace import Change

_SHOWN = 20


@verb(
    "resume",
    examples=(
        "crab resume last",
        "crab resume fixer-7f3a --dry-run      # only show what would be run",
        "crab resume fixer-7f3a@12 --yes       # go on differently from turn 12, in a new run",
    ),
    exits=(
        Exit.NOT_FOUND,
        Exit.BUSY,
        Exit.DAMAGED,
        Exit.DIVERGED,
        Exit.WAITING,
    ),
)
@click.argument("target", type=TARGET, metavar="RUN[@TURN]")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show the command.")
def command(app: App, *, target: Target, yes: bool, dry_run: bool) -> Outcome:
    """Run the recorded command of RUN again; it goes on where it was, or from TURN.

    The workspace is put to the last durable checkpoint, sealed model replies and tool results are
    answered from the journal, then the loop is live. A turn before the last one makes a new run.
    What is put back is shown first, and what of it is in no checkpoint; `crab undo` brings it
    back. This program becomes the recorded command: from then on output and exit code are its own
    (an uncaught error of crabrt ends it with the codes below).
    """
    found = resume_command(app.index, target)
    reverts = _reverts(app, found)
    shown = f"cd {shlex.quote(found.directory)} && {RESUME_VARIABLE}={found.target} " + shlex.join(
        found.argv
    )
    data = {
        "run": found.state.run.run,
        "from": reverts.state,
        "argv": list(found.argv),
        "cwd": found.directory,
        "resume": found.target,
        "reverts": [
            {
                **path_fields(change.path),
                "how": list(change.how),
                "in_no_checkpoint": change.path in reverts.conflicts,
            }
            for change in reverts.changes
        ],
    }

    def text(out: Screen) -> None:
        _show_reverts(out, reverts)
        out.line(safe_text(shown))

    if dry_run:
        return Outcome(data, text)
    if not app.json:
        _show_reverts(app.err, reverts)
        app.err.line(f"Resuming {reverts.state}: {safe_text(shown)}")
        app.err.flush()
    app.confirm("Run it?", yes=yes)
    app.close()
    return _become(found, str(app.home))


@dataclass(frozen=True)
class _Reverts:
    """To which state the workspace is put, what that changes, what of it is in no checkpoint."""

    state: str
    changes: tuple[Change, ...] = ()
    conflicts: frozenset[bytes] = frozenset()


def _reverts(app: App, found: Command) -> _Reverts:
    """What resuming puts back; nothing where the run goes on from the files as they are."""
    state, run = found.state, found.state.run
    try:
        workspace = app.workspace(run.workspace, run.view.exclude)
    except NotFound:
        return _Reverts(state.name)  # the recorded command says so, or makes it anew
    if found.target == run.run:
        stop = find_stop(read_journal(run_dir(app.home, RunId(run.run))))
        goal = state_to_restore(stop, app.store, app.home)
        if goal is None or disk_is_the_state(stop, workspace, app.home):
            return _Reverts(state.name)
        state = State(run, goal.turn, goal.inner, goal.root, goal.position)
    with app.progress("looking at the workspace"):
        plan = restore_state(app.index, app.writer, workspace, state, dry_run=True).report
    return _Reverts(state.name, plan.changes, frozenset(plan.conflicts))


def _show_reverts(out: Screen, reverts: _Reverts) -> None:
    if not reverts.changes:
        return
    out.paragraph(f"Put back to {reverts.state} first (`crab undo` brings it back):")
    for change in reverts.changes[:_SHOWN]:
        unknown = change.path in reverts.conflicts
        mark = out.style("  (in no checkpoint)", "yellow") if unknown else ""
        out.line(f"  {change_sign(change)} {safe_path(change.path)}{mark}")
    show_more(out, len(reverts.changes), _SHOWN)


def _become(found: Command, home: str) -> Outcome:
    """Replace this program by the recorded command; returns only by raising.

    Raises:
        CrabError: it cannot be executed.
    """
    environment = os.environ | {RESUME_VARIABLE: found.target, "CRAB_HOME": home}
    try:
        os.chdir(found.directory)
        os.execvpe(found.argv[0], list(found.argv), environment)  # noqa: S606 - it was recorded
    except OSError as error:
        raise CrabError(
            f"the recorded command cannot be run: {error.strerror}", where=found.argv[0]
        ) from error
