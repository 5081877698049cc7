"""What was alive after a turn, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crabrt.cli.screen import Screen
from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.core.secrets import redact_text
from crabrt.inspector.lasting import shown
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text

_NAMED = 4


def alive_lines(out: Screen, state: ProcessState) -> Iterator[str]:
    """A line for each tree, and what it holds below that."""
    for tree in state.trees:
        below = len(tree.processes) - 1
        more = f" and {below} below it" if below else ""
        none = "no image, can be started again" if tree.services else "no image"
        image = "imaged" if tree.imaged else out.style(none, "yellow")
        yield f"alive       {safe_text(shown(tree.top))}{more}: {image}"
        yield from _held(tree)


def _held(tree: ProcessTree) -> Iterator[str]:
    files = dict.fromkeys(path for one in tree.processes for path in one.files)
    ends = dict.fromkeys(end for one in tree.processes for end in one.connections)
    left = sum(one.unlisted for one in tree.processes)
    for verb, held in (("holds", list(map(safe_path, files))), ("talks to", list(ends))):
        if held:
            rest = max(0, len(held) - _NAMED)
            more = f" and {rest} more" if rest else ""
            yield f"            {verb} {', '.join(map(safe_text, held[:_NAMED]))}{more}"
    if left:
        yield f"            {left} more files and connections are not listed"


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
