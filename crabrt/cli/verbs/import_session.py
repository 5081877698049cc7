"""``crab import``: a session of another agent as a trace file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text
from crabrt.traces import FORMATS, import_file, trace_lines, write_file


@verb(
    "import",
    examples=(
        "crab import ~/.claude/projects/-home-me-app/4f0c.jsonl -o app.trace.jsonl",
        "crab import last_mini_run.traj.json | head -n 1   # what it is",
    ),
    exits=(Exit.NOT_FOUND, Exit.DAMAGED),
)
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here, not to stdout."
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    help="What the file is, where it is not recognized.",
)
def command(app: App, *, file: str, output: str | None, format_name: str | None) -> Outcome:
    """Make a trace of a session of SWE-agent, mini-swe-agent or Claude Code.

    With `crab replay` it can be run again, on a copy of the tree that it began on. Keys and tokens
    in it are replaced; what the format does not tell (waits, exit codes) stays unknown.
    """
    trace = import_file(Path(file), format_name)
    header = trace.header
    calls = sum(len(turn.tools) for turn in trace.turns)
    data: dict[str, Any] = {
        "id": header.id,
        "source": header.source,
        "turns": header.turns,
        "calls": calls,
        "workspace": header.workspace,
        "timing": header.timing,
        "notes": list(header.notes),
        "output": output,
    }
    content = trace_lines(trace)
    if output is None:
        if app.json:
            data["trace"] = [msgspec.json.decode(line) for line in content]
        return Outcome(data, lambda out: _print(out, b"".join(content)))
    data["size_bytes"] = write_file(Path(output), content)

    def text(out: Screen) -> None:
        turns = amounts.count(header.turns, "turn")
        out.line(
            f"{safe_text(header.source)} {safe_text(header.id)}: {turns}, "
            f"{amounts.count(calls, 'call')}, waits {header.timing}, in {safe_text(output)} "
            f"({amounts.size(data['size_bytes'])})"
        )
        out.lines(f"note: {safe_text(note)}" for note in header.notes)
        where = header.workspace or "the directory that it began on"
        out.line(f"Run it again on a copy of {safe_text(where)}:")
        out.line(f"  crab replay {safe_text(output)} --workspace COPY")

    return Outcome(data, text)


def _print(out: Screen, content: bytes) -> None:
    if out.terminal:
        out.line(safe_text(content.decode().rstrip("\n"), lines=True))
    else:
        out.raw(content)
