"""``crab tui``: the runs and their timelines on one screen, live."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import Config, user_config_path
from crabrt.core.ids import RunId, valid_name
from crabrt.core.targets import Target
from crabrt.errors import UsageError
from crabrt.journal.layout import run_dir
from crabrt.operations.settings_files import read_settings


@verb(
    "tui",
    examples=(
        "crab tui                  # all runs",
        "crab tui last             # the timeline of the last run here",
        "crab tui fixer-7f3a@87    # ... with the cursor on turn 87",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("target", type=TARGET, required=False, metavar="[RUN[@TURN]]")
def command(app: App, *, target: Target | None) -> Outcome:
    """Look at runs while they go on and after, and go back from where you are looking.

    It reads journals only: an agent does not notice. Whatever changes something is a `crab`
    command that is shown, and asks first. Each says what it would do, and
    restore and undo then do that or nothing. `?` lists the keys.
    Needs a terminal, and the extra: pip install 'crabrt[tui]'.
    """
    if app.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the interface needs a terminal", hint="`crab log RUN` and `crab runs` print instead"
        )
    kind = os.environ.get("TERM", "")
    if kind in {"", "dumb"}:
        raise UsageError(
            f"this terminal cannot move its cursor (TERM is {kind or 'not set'})",
            hint="`crab log RUN` and `crab runs` print instead",
        )
    try:
        from crabrt.tui.app import CrabApp  # noqa: PLC0415 - an extra, and half a second
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("textual"):
            raise
        raise UsageError(
            "the interface is not installed", hint="pip install 'crabrt[tui]'"
        ) from error
    run, at = (None, None) if target is None else meant(app, target)
    app.close()  # the interface has a store of its own, and keeps no lock while it only looks
    shown = CrabApp(
        app.home, run, at, is_default=_is_default(app.home), in_tmux=bool(os.environ.get("TMUX"))
    )
    shown.run()
    if shown.failure is not None:
        raise shown.failure
    return Outcome(None, lambda _: None, told=True)


def meant(app: App, target: Target) -> tuple[str, int | None]:
    """The run to show, and the turn to put the cursor on.

    For the id of a run that is there the index is not brought up to date: that may take long, and
    the screen does it meanwhile.

    Raises:
        NotFound, Ambiguous: there is no such run or turn.
    """
    is_id = valid_name(target.run) and run_dir(app.home, RunId(target.run)).is_dir()
    if is_id and target.at is None:
        return target.run, None
    run = app.index.find(target.run).run
    return run, None if target.at is None else app.index.turn(run, target.at).turn


def _is_default(home: Path) -> bool:
    """Whether a command without ``--home`` finds this store, in another terminal too."""
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("CRAB_")}
    return Config.from_env(user=read_settings(user_config_path()), environ=elsewhere).home == home
