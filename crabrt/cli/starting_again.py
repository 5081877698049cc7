"""Processes without an image: whether they are started again, and how to have that done."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.screen import Screen
from crabrt.core.clock import boot_id
from crabrt.core.ids import ObjectId
from crabrt.core.processes import LastingProcess
from crabrt.core.secrets import redact_text
from crabrt.process.state import read_state
from crabrt.process.table import is_alive
from crabrt.timeline.safe_text import safe_path, safe_text

_SHOWN = 30

respawn_option: Callable[[Any], Any] = click.option(
    "--respawn",
    is_flag=True,
    help="Start again, from their recorded commands, processes that have no image.",
)


def may_start(app: App, processes: bytes | None, *, respawn: bool, dry_run: bool = False) -> bool:
    """Whether processes may be started again; asks, if that is wanted and somebody is there.

    Args:
        app: the command.
        processes: the root of what is to be alive; empty or None: nothing is.
        respawn: ``--respawn`` was given.
        dry_run: nobody is asked.

    Raises:
        DamagedObject: what was alive cannot be read.
    """
    if respawn or app.config.respawn == "always":
        return True
    if dry_run or not processes or not can_ask(app):
        return False
    return ask(app, startable(app, processes))


def can_ask(app: App) -> bool:
    """Whether to ask is wanted, and somebody is there."""
    there = sys.stdin.isatty() and app.err.terminal and not app.json
    return there and app.config.respawn == "ask"


def startable(app: App, processes: bytes, *, gone: bool = False) -> tuple[LastingProcess, ...]:
    """What of a state could be started again.

    Args:
        app: the command.
        processes: its root; empty: nothing was alive.
        gone: leave out who is alive.

    Raises:
        DamagedObject: it cannot be read.
    """
    if not processes:
        return ()
    state = read_state(ObjectId(processes), app.store)
    found = (one for tree in state.trees for one in tree.startable)
    here = gone and state.boot == boot_id()
    return tuple(one for one in found if not (here and is_alive(one.identity)))


def ask(app: App, found: Iterable[LastingProcess]) -> bool:
    """Whether the user, at a terminal, wants these started again; not asked about none."""
    lines = [f"  {command_line(one)}" for one in found]
    if not lines:
        return False
    app.err.line("No image brings these back. They can be started again from their commands:")
    app.err.lines(lines)
    app.err.flush()
    return click.confirm("Start them again?", default=False, err=True)


def command_line(process: LastingProcess) -> str:
    """``cd DIR && COMMAND``, as somebody could type it; what looks like a secret is replaced."""
    words = [redact_text(os.fsdecode(word)) for word in process.command]
    place = f"cd {shlex.quote(safe_path(process.directory))} && " if process.directory else ""
    return safe_text(f"{place}{shlex.join(words)}")


def show_startable(
    out: Screen, found: Iterable[LastingProcess], again: str, *, most: int = _SHOWN
) -> None:
    """What could be started again, at most so many; `again` says by which command."""
    lines = [f"    {command_line(one)}" for one in found]
    if lines:
        out.line(f"  {again}, without what they had in memory:")
        out.lines(lines[:most])
        if len(lines) > most:
            out.line(f"    ... and {len(lines) - most} more (--json lists all)")
