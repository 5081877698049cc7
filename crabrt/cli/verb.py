"""What the verbs have in common: shared options, examples and exit codes in the help, one result.

A verb is a function ``(app, **options) -> Outcome``: it validates, calls ``operations``, and says
what to print in both forms. `verb` makes a click command of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from crabrt.cli.app import App
from crabrt.cli.envelope import envelope
from crabrt.cli.exits import ALWAYS, MEANING, Exit
from crabrt.cli.params import FileTarget
from crabrt.cli.screen import Screen, silence_stdout
from crabrt.core.targets import LAST, Target


@dataclass(frozen=True)
class Outcome:
    """What a verb found out or did.

    Attributes:
        data: the envelope's ``data``: JSON types only.
        text: writes the same for people.
        exit: the exit code; `Exit.INCOMPLETE` when something was skipped.
        told: everything was printed already, as it happened.
    """

    data: Any
    text: Callable[[Screen], None]
    exit: int = Exit.DONE
    told: bool = False


class VerbCommand(click.Command):
    """A click command whose help ends with examples and its exit codes.

    Attributes:
        examples, exits: for the help.
        about_last: its first argument may be left out and is ``last`` then, before a ``--`` too.
    """

    examples: tuple[str, ...] = ()
    exits: tuple[Exit, ...] = ()
    about_last = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; behind a ``--`` nothing is the first argument of a verb about `LAST`."""
        if self.about_last and "--" in args:
            at = args.index("--")
            given, _, _ = self.make_parser(ctx).parse_args(args[:at])
            first = next(param for param in self.params if isinstance(param, click.Argument))
            if not isinstance(given.get(first.name or ""), str):
                args = [*args[:at], LAST, *args[at:]]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then every code this verb may give."""
        with formatter.section("Examples"):
            for example in self.shown_examples(ctx):
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), MEANING[code]) for code in sorted(self.exits)])

    def shown_examples(self, ctx: click.Context) -> Sequence[str]:
        """The examples for the help that is asked for."""
        del ctx
        return self.examples


def verb(
    name: str,
    *,
    examples: Sequence[str],
    exits: Sequence[Exit] = (),
    about_last: bool = False,
    changes_workspace: bool = False,
    command_class: type[VerbCommand] = VerbCommand,
) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Make a command of a verb's function.

    Args:
        name: as in the table of ``cli.group``.
        examples: whole command lines.
        exits: the codes it may give beside those that every command may.
        about_last: see `VerbCommand`; its first argument has the default `LAST`.
        changes_workspace: of the run that it is about; so its ``last`` is never a run of another
            directory, unless it is told to leave the workspace alone (`_LOOKS`).
        command_class: of the command.
    """

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        def callback(
            *, json: bool, home: str | None, debug: bool, progress_fd: int | None, **options: Any
        ) -> int:
            del debug  # read from the command line by the program: it must work for bad options too
            with App(name, json=json, home=home, progress_fd=progress_fd) as app:
                changes = changes_workspace and not any(options.get(one) for one in _LOOKS)
                meant = {key: _meant(app, value, changes=changes) for key, value in options.items()}
                outcome = function(app, **meant)
                return _deliver(app, outcome)

        params = list(reversed(getattr(function, "__click_params__", [])))
        command = command_class(
            name=name, callback=callback, params=[*params, *_common()], help=function.__doc__
        )
        command.examples = tuple(examples)
        command.exits = tuple({*ALWAYS, *exits})
        command.about_last = about_last
        return command

    return decorate


_LOOKS: Final = ("dry_run", "to", "conversation_only")
"""Options with which no verb changes the workspace of a run."""


def _meant(app: App, value: Any, *, changes: bool) -> Any:
    """`value` with ``last`` replaced by the run that is meant from here."""
    if isinstance(value, Target):
        return app.meant(value, changes=changes)
    if isinstance(value, FileTarget):
        return FileTarget(app.meant(value.target, changes=changes), value.path)
    if isinstance(value, tuple):
        return tuple(_meant(app, one, changes=changes) for one in value)
    return value


def _common() -> list[click.Parameter]:
    return [
        click.Option(["--json"], is_flag=True, help="Print one JSON envelope, errors included."),
        click.Option(
            ["--home"],
            metavar="DIR",
            help="The store's directory, instead of $CRAB_HOME or the default.",
        ),
        click.Option(["--debug"], is_flag=True, help="Show tracebacks."),
        click.Option(["--progress-fd"], type=click.IntRange(min=3), metavar="FD", hidden=True),
    ]


def _deliver(app: App, outcome: Outcome) -> int:
    """Print the outcome. What was done is done: a reader who left does not change the code."""
    try:
        if outcome.told:
            pass
        elif app.json:
            app.out.line(envelope(app.command, outcome.data))
        else:
            outcome.text(app.out)
        app.out.flush()
    except BrokenPipeError:
        silence_stdout()
    return int(outcome.exit)
