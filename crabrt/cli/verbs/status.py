"""``crab status``: is this workspace protected now, by which run, since which turn, what is not?"""

from __future__ import annotations

import os
from typing import Any

import click

from crabrt.cli import amounts
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.safe_text import path_fields, safe_path, safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.cli.verbs.runs import STATUS_STYLES, run_json
from crabrt.journal import RunRow, TurnRow
from crabrt.operations.standing import Standing, standing_of, workspace_above
from crabrt.workspace import Workspace

_SHOWN = 20


@verb(
    "status",
    examples=("crab status", "crab status ~/project --json"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.argument("workspace", type=click.Path(), default=".")
def command(app: App, *, workspace: str) -> Outcome:
    """Tell whether WORKSPACE (default: the current directory) is protected, and what of it is not.

    A workspace inside or above another run's workspace counts as that run's. Exits with 3 when the
    latest turn is unprotected or a killed restore waits to be finished.
    """
    place = os.path.realpath(os.fsencode(workspace))
    if not app.has_store():
        data = {**path_fields(place, "workspace"), "protected": False, "run": None}
        return Outcome(data, lambda out: out.line("Not protected: there is no store yet."))
    opened = Workspace.open(workspace_above(app.index, place), app.home, force=True)
    found = standing_of(app.index, opened)
    incomplete = found.interrupted is not None or bool(found.turn and found.turn.unprotected)
    return Outcome(
        _data(place, found),
        lambda out: _show(out, place, found),
        Exit.INCOMPLETE if incomplete else Exit.DONE,
    )


def _show(out: Screen, place: bytes, found: Standing) -> None:
    if found.interrupted is not None:
        out.line(
            out.style("A restore here was killed; the next restore or undo finishes it.", "red")
        )
    run = found.run
    if run is None:
        out.line(f"{safe_path(place)} was never protected.")
        return
    status = out.style(run.status, *STATUS_STYLES.get(run.status, ()))
    now = "Protected now by" if run.status == "running" else "Not protected now. Last run:"
    out.line(f"{now} {safe_text(run.run)} ({status}), since {amounts.clock(run.started_ns)}")
    if run.workspace != place:
        out.line(f"Its workspace is {safe_path(run.workspace)}")
    if found.turn is not None:
        _show_turn(out, run, found.turn)
    if run.status == "crashed":
        out.line(f"Take it up again: crab resume {run.run}")
    for path, why in found.not_captured[:_SHOWN]:
        out.line(out.style(f"not captured: {safe_path(path)}: {safe_text(why)}", "yellow"))


def _show_turn(out: Screen, run: RunRow, turn: TurnRow) -> None:
    out.line(f"Latest turn: {turn.turn}, checkpoint {turn.protection}")
    restorable = run.view.restorable
    if restorable is not None and restorable != turn.turn:
        out.line(f"Latest that can be restored: {restorable}")
    for reason in turn.unprotected:
        out.line(out.style(f"unprotected: {safe_text(reason)}", "red"))


def _data(place: bytes, found: Standing) -> dict[str, Any]:
    turn = found.turn
    return {
        **path_fields(place, "workspace"),
        "protected": found.run is not None and found.run.status == "running",
        "run": None if found.run is None else run_json(found.run),
        "turn": None if turn is None else turn.turn,
        "checkpoint": None if turn is None else str(turn.protection),
        "restorable": None if found.run is None else found.run.view.restorable,
        "unprotected": [] if turn is None else list(turn.unprotected),
        "not_captured": [{**path_fields(path), "why": why} for path, why in found.not_captured],
        "restore_interrupted": found.interrupted is not None,
    }
