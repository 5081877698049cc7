"""``crab export``: a run as a trace file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.targets import LAST, Target
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text
from crabrt.traces import Options, export_run, lines, write_file
from crabrt.traces.schema import RECORDED, SYNTHETIC


@verb(
    "export",
    examples=(
        "crab export last > fix.trace.jsonl",
        "crab export fixer-7f3a --redact -o for-others.jsonl   # without texts, places renamed",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
    about_last=True,
)
@click.argument("run", type=RUN, metavar="[RUN]", default=LAST)
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here, not to stdout."
)
@click.option(
    "--redact",
    is_flag=True,
    help="Leave out messages, replies and results; rename the workspace, the home directory and "
    "mail addresses. Commands, edits and verdicts stay.",
)
@click.option(
    "--text-chars",
    type=click.IntRange(min=0),
    default=4000,
    show_default=True,
    help="Replies and results longer than this are cut.",
)
@click.option(
    "--timing",
    type=click.Choice([RECORDED, SYNTHETIC]),
    default=RECORDED,
    show_default=True,
    help="Whether the model's waits were real ones: said in the header.",
)
@click.option("--made-by", metavar="TEXT", default="", help="How it was made: for the header.")
def command(app: App, *, run: Target, output: str | None, **given: Any) -> Outcome:
    """Write a run as a trace: a line a turn, for people, programs and `crab replay`.

    Keys and tokens never get in, but what tools printed does: look at it, or use --redact, before
    you give it away. Files are not in a trace.
    """
    row = app.index.find(run.run)
    options = Options(home=os.path.expanduser("~"), **given)
    header, turns = export_run(app.store, app.index, row, options)
    content = lines(header, turns)
    data: dict[str, Any] = {"run": row.run, "turns": header.turns, "output": output}
    if output is not None:
        data["size_bytes"] = write_file(Path(output), content)
        told = f"{row.run}: {amounts.count(header.turns, 'turn')} in {safe_text(output)} "
        told += f"({amounts.size(data['size_bytes'])})"
        return Outcome(data, lambda out: out.line(told))
    if app.json:
        data["trace"] = [msgspec.json.decode(line) for line in content]
    return Outcome(data, lambda out: _print(out, content))


def _print(out: Screen, content: Iterable[bytes]) -> None:
    for line in content:
        if out.terminal:  # JSON escapes what controls a terminal, but not what hides text
            out.line(safe_text(line.decode().rstrip("\n")))
        else:
            out.raw(line)
