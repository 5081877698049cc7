"""The group ``crab``: a table of verbs whose modules are imported only when they are called."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass

import click

from crabrt.core.version import VERSION


@dataclass(frozen=True)
class VerbRow:
    """A line of ``crab --help``; the command is ``command`` in ``crabrt.cli.verbs.<module>``."""

    section: str
    module: str
    summary: str


_LOOK, _BACK, _KEEP, _MACHINE = "Look", "Go back, go on", "Keep and drop", "This machine"
_TRACE = "Traces"

VERBS: dict[str, VerbRow] = {
    "status": VerbRow(_LOOK, "status", "Is this workspace protected now, and what of it is not?"),
    "runs": VerbRow(_LOOK, "runs", "The runs, newest first."),
    "log": VerbRow(_LOOK, "log", "A line for each turn of a run."),
    "show": VerbRow(_LOOK, "show", "One turn in full, or a file as it was."),
    "tui": VerbRow(_LOOK, "tui", "The runs and their timelines on one screen, live."),
    "diff": VerbRow(_LOOK, "diff", "What changed between two turns, or since one."),
    "report": VerbRow(_LOOK, "report", "A run as one HTML file, to send to somebody."),
    "restore": VerbRow(_BACK, "restore", "Put the workspace, or some paths, back to a turn."),
    "undo": VerbRow(_BACK, "undo", "Undo the last restore of this workspace."),
    "resume": VerbRow(_BACK, "resume", "Restore, replay what is recorded, go on live."),
    "fork": VerbRow(_BACK, "fork", "A new run in a new directory, from a turn."),
    "bisect": VerbRow(_BACK, "bisect", "Find the turn that broke it."),
    "label": VerbRow(_KEEP, "label", "Give a turn a name."),
    "pin": VerbRow(_KEEP, "pin", "Keep a turn from retention."),
    "rm": VerbRow(_KEEP, "rm", "Delete runs."),
    "prune": VerbRow(_KEEP, "prune", "Thin old turns by a retention policy."),
    "gc": VerbRow(_KEEP, "gc", "Reclaim what nothing refers to."),
    "du": VerbRow(_KEEP, "du", "Where the bytes are."),
    "export": VerbRow(_TRACE, "export", "A run as a trace file."),
    "replay": VerbRow(_TRACE, "replay", "Run a trace again, its tools really at work."),
    "import": VerbRow(_TRACE, "import_session", "Another agent's session as a trace file."),
    "check": VerbRow(_MACHINE, "check", "Verify the store and every journal."),
    "repair": VerbRow(_MACHINE, "repair", "Rebuild what is derived, cut what is torn."),
    "doctor": VerbRow(_MACHINE, "doctor", "What this machine can and cannot protect."),
    "bench": VerbRow(_MACHINE, "bench", "Measure what protection costs on this machine."),
    "demo": VerbRow(_MACHINE, "demo", "See it work: kill an agent, resume it, go back."),
    "completion": VerbRow(_MACHINE, "completion", "Print a shell's completion script."),
}
"""Every verb. The tests walk this table."""


class LazyGroup(click.Group):
    """A click group over `VERBS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; None for a name that is no verb."""
        del ctx
        row = VERBS.get(cmd_name)
        if row is None:
            return None
        command = importlib.import_module(f"crabrt.cli.verbs.{row.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that `args` begins with; for a mistyped one, the error names the nearest."""
        name = args[0]
        near = difflib.get_close_matches(name, VERBS, n=1)
        if name not in VERBS and not name.startswith("-") and near:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, by section, without importing any verb."""
        del ctx
        for section in (_LOOK, _BACK, _KEEP, _TRACE, _MACHINE):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, row.summary) for name, row in VERBS.items() if row.section == section]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where to go on from here."""
        del ctx
        formatter.write_paragraph()
        formatter.write_text(
            "A target is RUN@TURN: RUN is an id, a unique prefix, a name, or `last`; TURN a "
            "number, -1 for the latest, k.n for a point inside turn k, or a label."
        )
        formatter.write_paragraph()
        formatter.write_text("`crab VERB --help` shows examples and exit codes.")


def _show_version(ctx: click.Context, param: click.Parameter, value: object) -> None:
    del param
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"crabrt {VERSION}")
    ctx.exit()


GROUP = LazyGroup(
    name="crab",
    help="Checkpoints for agent loops: every turn restorable, files and conversation together.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_show_version,
            help="Print the version.",
        )
    ],
)
"""The command ``crab``."""
