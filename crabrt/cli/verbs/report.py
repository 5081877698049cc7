"""``crab report``: a run as one HTML file, to send to somebody."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import RUN, SIZE
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.secrets import is_secret_name
from crabrt.core.targets import LAST, Target
from crabrt.errors import UsageError
from crabrt.report import Report, ReportOptions, make_report
from crabrt.report.options import MAX_BYTES, PATCH_BYTES, TEXT_BYTES
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text
from crabrt.traces.writing import CannotWrite, write_file

_STDOUT = "-"
_LEAST = 1 << 20
_SHOWN_PROBLEMS = 8
_SECRET_ENDS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_PASSWD", "_CREDENTIALS")


@verb(
    "report",
    examples=(
        "crab report last -o report.html",
        "crab report fixer-7f3a -o whole.html --no-redact    # with messages, outputs and places",
        "crab report last -o - | ssh host 'cat > report.html'",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
    about_last=True,
)
@click.argument("run", type=RUN, metavar="[RUN]", default=LAST)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    required=True,
    help="Write here; `-` is stdout.",
)
@click.option(
    "--redact/--no-redact",
    default=True,
    show_default=True,
    help="Leave out messages, replies, outputs and files that are named like secrets; rename the "
    "workspace, the home directory and mail addresses.",
)
@click.option(
    "--max-bytes",
    type=SIZE,
    default=MAX_BYTES,
    show_default="20M",
    help="Of the file, about: turns are told shorter to stay below it.",
)
@click.option(
    "--text-bytes",
    type=SIZE,
    default=TEXT_BYTES,
    show_default="16K",
    help="Of one message or output.",
)
@click.option(
    "--patch-bytes",
    type=SIZE,
    default=PATCH_BYTES,
    show_default="32K",
    help="Of the patch of one file.",
)
def command(app: App, *, run: Target, output: str, redact: bool, **sizes: int) -> Outcome:
    """Write a run as one HTML file: timeline, plots, calls and diffs, to look at and to send.

    The file needs no network and nothing in it can run. It is redacted unless you say --no-redact:
    commands and changed lines of files stay, so look at it before you give it away. Keys and tokens
    are replaced either way.
    """
    if sizes["max_bytes"] < _LEAST:
        raise UsageError("a report needs --max-bytes of at least 1M")
    target = None if output == _STDOUT else _writable(output)
    row = app.index.find(run.run)
    options = ReportOptions(
        redact=redact, home=os.path.expanduser("~"), secrets=_secrets_around(), **sizes
    )
    with app.progress("reading the run") as progress:
        report = make_report(app.store, row.run, options, progress)
        pieces = list(report.pieces)
    size_bytes = sum(len(piece) for piece in pieces)
    inside = target is not None and _is_inside(target, row.workspace)
    data: dict[str, Any] = {
        "run": report.run,
        "turns": report.turns,
        "output": None if target is None else output,
        "size_bytes": size_bytes,
        "redacted": redact,
        "cut": report.cut,
        "omitted": report.omitted,
        "problems": list(report.problems),
        "in_workspace": inside,
    }
    code = Exit.INCOMPLETE if report.problems or report.omitted else Exit.DONE
    if row.problem is not None:
        code = Exit.DAMAGED
    if target is None:
        if app.json:
            data["html"] = b"".join(pieces).decode()
        return Outcome(data, lambda out: _print(app, out, report, pieces), code)
    write_file(target, pieces)
    return Outcome(data, lambda out: _tell(app, out, report, data), code)


def _tell(app: App, out: Screen, report: Report, data: dict[str, Any]) -> None:
    what = "redacted" if data["redacted"] else "not redacted"
    out.line(
        f"{report.run}: {amounts.count(report.turns, 'state')} in {safe_text(data['output'])} "
        f"({amounts.size(data['size_bytes'])}, {what})"
    )
    if data["in_workspace"]:
        app.err.paragraph(
            "the file is inside of the workspace: it becomes part of the state of later turns",
            "yellow",
        )
    _warn(app, report)


def _warn(app: App, report: Report) -> None:
    """What is not in the file, on standard error."""
    if report.cut:
        told = f"{amounts.count(report.cut, 'turn')} told shorter to fit: --max-bytes"
        app.err.paragraph(told, "yellow")
    if report.omitted:
        told = f"the oldest {amounts.count(report.omitted, 'turn')} left out: --max-bytes"
        app.err.paragraph(told, "yellow")
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        app.err.paragraph(f"cannot be read: {safe_text(problem)}", "yellow")
    if len(report.problems) > _SHOWN_PROBLEMS:
        app.err.line(f"... and {len(report.problems) - _SHOWN_PROBLEMS} more (--json lists all)")


def _print(app: App, out: Screen, report: Report, pieces: list[bytes]) -> None:
    for piece in pieces:
        if out.terminal:  # all that is stored is escaped already; what hides text is, here
            out.line(safe_text(piece.decode(), lines=True))
        else:
            out.raw(piece)
    _warn(app, report)


def _writable(output: str) -> Path:
    """The file to write: a new one, or one to replace.

    Raises:
        CannotWrite: a directory, a device or the like stands there.
    """
    path = Path(output)
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # writing it will say why, if it is not just that there is none
        return path
    if not stat.S_ISREG(mode) and not (stat.S_ISLNK(mode) and path.is_file()):
        what = "a directory" if stat.S_ISDIR(mode) else "no ordinary file"
        raise CannotWrite(f"this is {what}", where=output, hint="name a file, or - for stdout")
    return path


def _is_inside(path: Path, workspace: bytes) -> bool:
    top = os.path.realpath(workspace)
    real = os.path.realpath(os.fsencode(path.parent.absolute()))
    return real == top or real.startswith(top.rstrip(b"/") + b"/")


def _secrets_around() -> tuple[str, ...]:
    """Values of the variables here that are named like a key: they must be nowhere in a report."""
    return tuple(
        value
        for name, value in os.environ.items()
        if value and (is_secret_name(name) or name.upper().endswith(_SECRET_ENDS))
    )
