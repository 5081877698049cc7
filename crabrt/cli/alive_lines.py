"""What was alive after a turn, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crabrt.cli.screen import Screen
from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.core.secrets import redact_text
from crabrt.timeline.alive import Member, alive_trees
from crabrt.timeline.safe_text import path_fields
from crabrt.timeline.signs import Tone

_NAMED = 4


def alive_lines(out: Screen, state: ProcessState) -> Iterator[str]:
    """A line for each process, those below another further in; and below it what it holds."""
    for tree in alive_trees(state):
        more = f" and {tree.below} below it" if tree.below else ""
        is_imaged = tree.image.tone is Tone.GOOD
        image = tree.image.word if is_imaged else out.style(tree.image.word, "yellow")
        for member in tree.members:
            if member is tree.top:
                yield f"alive       {member.title}{more}: {image}"
            else:
                yield f"{' ' * (12 + 2 * member.depth)}└ {member.title}"
            margin = " " * (14 if member is tree.top else 16 + 2 * member.depth)
            for line in _held(member):
                yield margin + line
        if tree.more:
            yield f"{' ' * 14}└ {tree.more:,} more"


def _held(member: Member) -> Iterator[str]:
    for holding in member.beside_title:
        yield f"{holding.verb} {', '.join(holding.items(_NAMED))}"
    if member.unlisted:
        yield f"{member.unlisted:,} more files and connections are not listed"


def alive_json(state: ProcessState) -> list[dict[str, Any]]:
    """Every process, parents before children."""
    return [_process(tree, at) for tree in state.trees for at in range(len(tree.processes))]


def command_json(process: LastingProcess) -> list[str]:
    """The argument vector; what looks like a secret is replaced."""
    return [redact_text(word.decode("utf-8", "backslashreplace")) for word in process.command]


def _process(tree: ProcessTree, at: int) -> dict[str, Any]:
    process = tree.processes[at]
    return {
        "pid": process.pid,
        "parent": process.parent,
        "command": command_json(process),
        **path_fields(process.directory, "directory"),
        "listens": list(process.listens),
        "files": [path_fields(path) for path in process.files],
        "connections": list(process.connections),
        "unlisted": process.unlisted,
        "imaged": tree.imaged,
        "why_not": tree.why_not,
        "can_be_started": process in tree.startable,
    }
