"""``crab resume``: restore, replay what is recorded, go on live."""

from __future__ import annotations

import os
import shlex

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.safe_text import safe_text
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import RESUME_VARIABLE
from crabrt.core.targets import Target
from crabrt.errors import CrabError
from crabrt.operations.resuming import Command, resume_command


@verb(
    "resume",
    examples=(
        "crab resume last",
        "crab resume fixer-7f3a --dry-run      # only show what would be run",
        "crab resume fixer-7f3a@12 --yes       # go on differently from turn 12, in a new run",
    ),
    exits=(
        Exit.NOT_FOUND,
        Exit.REFUSED,
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
    This
    program becomes the recorded command: from then on output and exit code are its own.
    """
    found = resume_command(app.index, target)
    shown = f"cd {shlex.quote(found.directory)} && {RESUME_VARIABLE}={found.target} " + shlex.join(
        found.argv
    )
    data = {
        "run": found.state.run.run,
        "from": found.state.name,
        "argv": list(found.argv),
        "cwd": found.directory,
        "resume": found.target,
    }
    if dry_run:
        return Outcome(data, lambda out: out.line(safe_text(shown)))
    if not app.json:
        app.err.line(f"Resuming {found.state.name}: {safe_text(shown)}")
        app.err.flush()
    app.confirm("Run it?", yes=yes)
    app.close()
    return _become(found, str(app.home))


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
