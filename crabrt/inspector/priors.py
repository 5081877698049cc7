"""Priors: what a call will probably do, guessed before it runs. Pure, but for loading the grammar.

From what the tool is declared to do; else from the command among its arguments, read as the shell
would (``shell``, ``priors_commands``); else from the tool's name. What is not understood is
unknown.

A guess decides what has to be durable before the call runs, and explains. It never spares a look
and never narrows a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from crabrt.core.verdicts import Guess, Likely, Prior
from crabrt.inspector.priors_scripts import encodable, guess_all
from crabrt.inspector.priors_table import words
from crabrt.inspector.priors_words import Place

NAME_MAX = 80
"""Characters of a tool's name in a reason."""


def guess_call(
    tool: str, declared: Prior, arguments: Mapping[str, Any], *, workspace: str = ""
) -> Guess | None:
    """What a call of `tool` will probably do; None where that is declared.

    Args:
        tool: its name.
        declared: what it is declared to do.
        arguments: of the call, by name.
        workspace: absolute path of the workspace.
    """
    if declared is not Prior.AUTO:
        return None
    place = Place(workspace)
    commands = list(_commands_in(tool, arguments))
    if commands:
        return guess_all(commands, place)
    return guess_name(tool)


# -- tools -------------------------------------------------------------------------------------

_COMMAND_KEYS = frozenset(
    {"command", "cmd", "commands", "cmds", "script", "bash_command", "shell_command", "cmdline"}
)
_ARGV_KEYS = frozenset({"command", "cmd", "argv"})
_SHELL_TOOLS = re.compile(
    r"(run_?|exec(ute)?_?)?(in_?)?(ba|z)?sh(ell)?(_?(command|cmd|tool|exec))?|terminal(_command)?"
    r"|run_?(command|terminal_cmd|cmd)|exec(ute)?_?(command|cmd)",
    re.IGNORECASE,
)


def _commands_in(tool: str, arguments: Mapping[str, Any]) -> Iterator[str | list[str]]:
    """The commands among a call's arguments: shell text, or the words of one."""
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            for inner, below in value.items():
                if inner in _COMMAND_KEYS | _ARGV_KEYS:
                    yield from _command_texts(str(inner), below)
        elif key in _COMMAND_KEYS | _ARGV_KEYS:
            yield from _command_texts(key, value)
        elif len(arguments) == 1 and isinstance(value, str) and _SHELL_TOOLS.fullmatch(tool):
            yield value


def _command_texts(key: str, value: Any) -> Iterator[str | list[str]]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        if key in _ARGV_KEYS:
            yield list(value)
        else:
            yield from value


_READERS = words(
    """
    cat find glob grep list ls open read show stat think tree view
    """
)
_WRITERS = words(
    """
    append apply create delete edit insert mkdir move patch remove rename replace write
    """
)
_SENDERS = words(
    """
    charge deploy email notify pay publish purchase refund send transfer tweet upload
    """
)
_LOCAL = words(
    """
    code content diff dir directories directory file files folder line lines notebook patch path
    str string text tree
    """
)


def guess_name(tool: str) -> Guess:
    """What a tool of that name will probably do."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", tool)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word]
    verb, rest = (words[0], set(words[1:])) if words else ("", set())
    local = not rest or bool(rest & _LOCAL)
    said = encodable(tool)[:NAME_MAX]
    if verb in _SENDERS:
        return Guess(Likely.EXTERNAL, f"its name, {said}: leaves the machine")
    if verb in _READERS and local:
        return Guess(Likely.NONE, f"its name, {said}: reads")
    if verb in _WRITERS and local:
        return Guess(Likely.FILES, f"its name, {said}: writes files")
    return Guess(Likely.UNKNOWN, "neither declared nor known by its name")
