"""``crab completion``: the script that teaches a shell to complete verbs, runs and turns."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from crabrt.cli.app import App
from crabrt.cli.group import GROUP
from crabrt.cli.verb import Outcome, verb

_SHELLS = ("bash", "zsh", "fish")
_WHOLE_TARGETS = "\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n"
"""Bash takes an ``@`` for the beginning of a host name, and would complete behind it as a word."""


@verb(
    "completion",
    examples=(
        'eval "$(crab completion bash)"       # in ~/.bashrc',
        'eval "$(crab completion zsh)"        # in ~/.zshrc',
        "crab completion fish > ~/.config/fish/completions/crab.fish",
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
def command(app: App, shell: str) -> Outcome:
    """Print the completion script for SHELL; it completes verbs, options, runs and turns.

    The script is for the name it was asked under: `crab`, or `crabrt`.
    """
    del app
    kind = get_completion_class(shell)
    assert kind is not None
    name = click.get_current_context().find_root().info_name or "crab"
    script = kind(GROUP, {}, name, f"_{name.upper()}_COMPLETE").source()
    if shell == "bash":
        script += _WHOLE_TARGETS
    return Outcome({"shell": shell, "script": script}, lambda out: out.line(script.rstrip()))
