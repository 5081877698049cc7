"""The program round the verbs: parse, call one, and turn whatever happens into an exit code.

Every error ends here: a `CrabError` prints what, where and what next; anything unexpected prints
one line and how to see the traceback. With ``--json`` both are envelopes on standard output.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from crabrt.cli.envelope import envelope, error_fields
from crabrt.cli.exits import Exit
from crabrt.cli.group import GROUP
from crabrt.cli.screen import Screen, environment_screens, silence_stdout
from crabrt.errors import CrabError, Diverged, UsageError, WouldLoseChanges
from crabrt.timeline.safe_text import safe_path, safe_text

_SHOWN_PATHS = 20


def run_program() -> NoReturn:
    """Run ``sys.argv`` and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without our symbols shows them escaped
            stream.reconfigure(errors="backslashreplace")
    code = execute(sys.argv[1:], os.path.basename(sys.argv[0]))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
    sys.exit(code)


def execute(argv: Sequence[str], program: str = "crab") -> int:
    """Run one command line; its exit code."""
    name = program if program in {"crab", "crabrt"} else "crab"
    try:
        result = GROUP.main(args=list(argv), prog_name=name, standalone_mode=False)
    except BrokenPipeError:
        silence_stdout()
        return Exit.DONE
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _report(argv, _interrupted(), debug=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return Exit.USAGE
    except click.ClickException as error:
        return _report(argv, _usage(error), debug=False)
    except CrabError as error:
        return _report(argv, error, debug=_asked("--debug", argv))
    except Exception as error:  # noqa: BLE001 - the last line of defence: it becomes one sentence
        return _report(argv, _unexpected(error), debug=_asked("--debug", argv))
    return result if isinstance(result, int) else Exit.DONE


class _Interrupted(CrabError):
    kind = "interrupted"
    exit_code = int(Exit.INTERRUPTED)


class _Unexpected(CrabError):
    kind = "unexpected"


def _interrupted() -> CrabError:
    return _Interrupted("interrupted")


def _unexpected(error: Exception) -> CrabError:
    text = str(error).splitlines()[0] if str(error) else ""
    kind = type(error).__name__
    return _Unexpected(
        f"unexpected {kind}: {text}" if text else f"unexpected {kind}",
        hint="this is a bug in crabrt; run it again with --debug for the traceback",
    )


def _usage(error: click.ClickException) -> CrabError:
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    return UsageError(error.format_message().rstrip("."), hint=hint)


def _asked(flag: str, argv: Sequence[str]) -> bool:
    """Whether `flag` is among our own arguments (what follows ``--`` is somebody else's)."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return flag in own


def _report(argv: Sequence[str], error: CrabError, *, debug: bool) -> int:
    out, err = environment_screens()
    if debug:
        traceback.print_exc()
    try:
        if _asked("--json", argv):
            verb = next((word for word in argv if not word.startswith("-")), "")
            out.line(envelope(verb, None, error_fields(error)))
            out.flush()
        else:
            _print_error(err, error, every=_asked("--all", argv))
    except BrokenPipeError:
        silence_stdout()
    return int(error.exit_code)


def _print_error(err: Screen, error: CrabError, *, every: bool) -> None:
    err.paragraph(safe_text(error.message), lead=err.style("crab: ", "red", "bold"), indent=6)
    if error.where is not None:
        err.line(f"  where: {safe_text(error.where)}")
    if isinstance(error, WouldLoseChanges):
        shown = error.paths if every else error.paths[:_SHOWN_PATHS]
        for path in shown:
            err.line(f"  changed: {safe_path(path)}")
        if len(error.paths) > len(shown):
            err.line(f"  ... and {len(error.paths) - len(shown)} more (--json lists all)")
    if isinstance(error, Diverged) and error.diff:
        err.line(safe_text(error.diff, lines=True))
    if error.hint is not None:
        err.paragraph(safe_text(error.hint), lead="  hint:  ", indent=9)
