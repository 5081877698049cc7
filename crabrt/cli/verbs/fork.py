"""``crab fork``: a new run in a new workspace, from a turn."""

from __future__ import annotations

from pathlib import Path

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import restored_exit, restored_json, show_restored, skipped_text
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import Target
from crabrt.operations.forking import PathRule, fork_to
from crabrt.operations.restoring import Restored
from crabrt.operations.targets import resolve


@verb(
    "fork",
    examples=("crab fork last@9 --to ../another-try", "crab resume RUN   # as `fork` printed it"),
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
def command(app: App, *, target: Target, to: str, paths: PathRule) -> Outcome:
    """Make a new run in DIR that has the history of RUN up to TURN, and its files.

    DIR must be absent or empty. The run forked from stays as it is, and may even be live. A
    conversation that names the old workspace's absolute path is refused: the forked agent would go
    on editing the original. (A view of the fork's files at the old path comes with mount
    namespaces.)
    """
    state = resolve(app.index, target)
    with app.progress(f"forking {state.name}") as progress:
        fork = fork_to(app.store, state, Path(to).absolute(), paths=paths, progress=progress)
    done = Restored(fork.report, None, (), str(fork.directory).encode("utf-8", "surrogateescape"))
    data = {
        "run": fork.run,
        "parent": state.run.run,
        **restored_json(done, state.name, None),
        "skipped_turns": list(state.skipped),
    }

    def text(out: Screen) -> None:
        if (skipped := skipped_text(state)) is not None:
            out.paragraph(skipped)
        show_restored(out, done, state.name)
        out.line(f"New run: {fork.run}")
        out.line(f"Go on in it: crab resume {fork.run}")

    return Outcome(data, text, restored_exit(fork.report))
