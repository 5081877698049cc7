"""The click side of ``crab bench``: help by benchmark, refusal of options that it does not read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import click
from click.core import ParameterSource

from crabrt.cli.bench_options import BENCHES, readers
from crabrt.cli.verb import VerbCommand
from crabrt.errors import UsageError

_ABOUT = "crabrt.cli.bench"
"""Key in the context's ``meta``: the benchmark that a help text is about."""


class BenchCommand(VerbCommand):
    """``crab bench --help`` marks options by benchmark; with a NAME it shows those of that one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; ``--help`` acts as soon as it is met, so the NAME is looked for first."""
        if not ctx.resilient_parsing and any(word in ctx.help_option_names for word in args):
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            if given.get("name") in BENCHES:
                ctx.meta[_ABOUT] = given["name"]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """With the NAME as typed."""
        name = ctx.meta.get(_ABOUT)
        return super().collect_usage_pieces(ctx) if name is None else [name, "[OPTIONS]"]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The text; what is measured is told for one benchmark, or for each."""
        name = ctx.meta.get(_ABOUT)
        if name is not None:
            with formatter.indentation():
                formatter.write_paragraph()
                formatter.write_text(BENCHES[name].about)
        super().format_help_text(ctx, formatter)
        if name is None:
            with formatter.section("Benchmarks"):
                formatter.write_dl([(name, one.about) for name, one in BENCHES.items()])

    def shown_examples(self, ctx: click.Context) -> Sequence[str]:
        """Those of the benchmark that the help is about."""
        name = ctx.meta.get(_ABOUT)
        return [one for one in self.examples if name is None or shlex.split(one)[2:3] == [name]]


class BenchOption(click.Option):
    """An option whose help says which benchmarks read it."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its lines in the help; None where the benchmark in question does not read it."""
        record, about = super().get_help_record(ctx), ctx.meta.get(_ABOUT)
        names = readers(self.name or "")
        if record is None or not names or about in names:
            return record
        if about is not None:
            return None
        shown, text = record
        return shown, f"{', '.join(names)}: {text[:1].lower()}{text[1:]}"


def check_given(ctx: click.Context, names: Sequence[str]) -> None:
    """Refuse what was given and none of the benchmarks `names` reads.

    Raises:
        UsageError: it names the options, and the benchmarks that take each.
    """
    ignored = [
        option
        for option in given_options(ctx)
        if (takers := readers(option.name or "")) and not set(takers) & set(names)
    ]
    if not ignored:
        return
    words = ", ".join(option.opts[0] for option in ignored)
    hint = "; ".join(f"{one.opts[0]}: {', '.join(readers(one.name or ''))}" for one in ignored)
    what = "is no option" if len(ignored) == 1 else "are no options"
    raise UsageError(f"{words} {what} of crab bench {' or '.join(names)}", hint=f"taken by {hint}")


def given_options(ctx: click.Context) -> Iterator[click.Option]:
    """The options that were named on the command line."""
    for parameter in ctx.command.params:
        if not isinstance(parameter, click.Option) or parameter.name is None:
            continue
        if ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            yield parameter
