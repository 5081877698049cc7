"""``crab resume``: restore, replay what is recorded, go on live."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from crabrt.cli.alive_lines import command_json
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import change_sign, show_more
from crabrt.cli.screen import Screen
from crabrt.cli.starting_again import (
    ask,
    can_ask,
    command_line,
    respawn_option,
    show_startable,
    startable,
)
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import RESPAWN_VARIABLE, RESUME_VARIABLE
from crabrt.core.ids import RunId
from crabrt.core.processes import LastingProcess
from crabrt.core.targets import Target
from crabrt.errors import CrabError, NotFound
from crabrt.journal import read_journal, run_dir
from crabrt.operations.restoring import restore_state
from crabrt.operations.resuming import Command, resume_command
from crabrt.operations.targets import State
from crabrt.runtime.inplace import disk_is_the_state
from crabrt.runtime.newest import state_to_restore
from crabrt.runtime.recovery import find_stop
from crabrt.timeline.safe_text import path_fields, safe_path, shell_word
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
    changes_workspace=True,
)
@click.argument("target", type=TARGET, metavar="RUN[@TURN]")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show the command.")
@respawn_option
def command(app: App, *, target: Target, yes: bool, dry_run: bool, respawn: bool) -> Outcome:
    """Run the recorded command of RUN again; it goes on where it was, or from TURN.

    The workspace is put to the last durable checkpoint, sealed model replies and tool results are
    answered from the journal, then the loop is live. A turn before the last one makes a new run.
    What is put back is shown first, and what of it is in no checkpoint; `crab undo` brings it
    back. Processes that have no image are started again from their recorded commands if you allow
    it (--respawn, or the setting respawn). This program becomes the recorded command: from then on
    output and exit code are its own (an uncaught error of crabrt ends it with the codes below).
    """
    found = resume_command(app.index, target)
    starts = respawn or app.config.respawn == "always"
    reverts = _reverts(app, found, starts=starts)
    if not (starts or dry_run or yes) and can_ask(app) and ask(app, reverts.startable):
        starts, reverts = True, _reverts(app, found, starts=True)
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
        "would_start": [command_json(one) for one in reverts.startable],
    }

    def text(out: Screen) -> None:
        _show_reverts(out, reverts, app.undo_of(found.state.run.workspace))
        if starts or dry_run or yes:
            again = f"{app.typed('resume', found.target)} --respawn"
            _show_started(out, reverts, again, starts=starts)
        resuming = "" if dry_run else f"Resuming {reverts.state}: "
        out.line(f"{resuming}{_shown(app, found)}")

    if dry_run:
        return Outcome(data, text)
    if not app.json:
        text(app.err)
        app.err.flush()
    app.confirm("Run it?", yes=yes)
    app.close()
    return _become(found, str(app.home), starts=starts)


@dataclass(frozen=True)
class _Reverts:
    """To which state the workspace is put, what that changes, what of it is in no checkpoint.

    And what was alive then, has no image, and could be started again.
    """

    state: str
    changes: tuple[Change, ...] = ()
    conflicts: frozenset[bytes] = frozenset()
    startable: tuple[LastingProcess, ...] = ()


def _reverts(app: App, found: Command, *, starts: bool) -> _Reverts:
    """What resuming puts back; nothing where the run goes on from the files as they are.

    With `starts`, it does not do that where somebody is gone who can be started again.
    """
    state, run = found.state, found.state.run
    try:
        workspace = app.workspace(run.workspace, run.view.exclude)
    except NotFound:
        return _Reverts(state.name)  # the recorded command says so, or makes it anew
    if found.target == run.run:
        stop = find_stop(read_journal(run_dir(app.home, RunId(run.run))))
        goal = state_to_restore(stop, app.store, app.home)
        if goal is None:
            return _Reverts(state.name)
        gone = startable(app, goal.processes, gone=True)
        if disk_is_the_state(stop, workspace, app.home) and not (gone and starts):
            return _Reverts(state.name, startable=gone)
        state = State(run, goal.turn, goal.inner, goal.root, goal.position, goal.processes)
    with app.progress("looking at the workspace"):
        plan = restore_state(app.index, app.writer, workspace, state, dry_run=True).report
    back = startable(app, state.processes)
    return _Reverts(state.name, plan.changes, frozenset(plan.conflicts), back)


def _shown(app: App, found: Command) -> str:
    """What is run, as somebody may paste it."""
    home = f"CRAB_HOME={shell_word(str(app.home))} " if app.has_other_home else ""
    words = " ".join(map(shell_word, found.argv))
    return f"cd {shell_word(found.directory)} && {home}{RESUME_VARIABLE}={found.target} {words}"


def _show_started(out: Screen, reverts: _Reverts, again: str, *, starts: bool) -> None:
    if starts:
        out.lines(f"To be started again: {command_line(one)}" for one in reverts.startable)
    else:
        show_startable(out, reverts.startable, f"`{again}` starts these again")


def _show_reverts(out: Screen, reverts: _Reverts, undo: str) -> None:
    if reverts.changes:
        out.paragraph(f"Put back to {reverts.state} first (`{undo}` brings it back):")
    for change in reverts.changes[:_SHOWN]:
        unknown = change.path in reverts.conflicts
        mark = out.style("  (in no checkpoint)", "yellow") if unknown else ""
        out.line(f"  {change_sign(change)} {safe_path(change.path)}{mark}")
    show_more(out, len(reverts.changes), _SHOWN)


def _become(found: Command, home: str, *, starts: bool) -> Outcome:
    """Replace this program by the recorded command; returns only by raising.

    Raises:
        CrabError: it cannot be executed.
    """
    environment = os.environ | {RESUME_VARIABLE: found.target, "CRAB_HOME": home}
    if starts:
        environment[RESPAWN_VARIABLE] = "always"
    try:
        os.chdir(found.directory)
        os.execvpe(found.argv[0], list(found.argv), environment)  # noqa: S606 - it was recorded
    except OSError as error:
        raise CrabError(
            f"the recorded command cannot be run: {error.strerror}", where=found.argv[0]
        ) from error
