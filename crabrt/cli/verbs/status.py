"""``crab status``: is this workspace protected now, by which run, since which turn, what is not?"""

from __future__ import annotations

from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.cut_off_lines import cut_off_json, cut_off_line
from crabrt.cli.exits import Exit
from crabrt.cli.going_on import going_on
from crabrt.cli.reports import show_more
from crabrt.cli.run_lines import run_json, run_title
from crabrt.cli.screen import Screen
from crabrt.cli.tones import sign_text
from crabrt.cli.verb import Outcome, verb
from crabrt.core.verdicts import Protection
from crabrt.journal import RunRow, TurnRow
from crabrt.operations.standing import Standing, standing_of, workspace_above
from crabrt.timeline import amounts
from crabrt.timeline.runs import how_it_ended
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text
from crabrt.timeline.signs import checkpoint_sign
from crabrt.workspace import Workspace

_SHOWN = 20
_HOW_TO_BEGIN = (
    'Protect it: put @crabrt.agent(workspace=".") on your loop, or see it first: crab demo'
)


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
    place = app.place(workspace)
    if not app.has_store():
        data = {**path_fields(place, "workspace"), "protected": False, "run": None}
        return Outcome(data, _show_nothing)
    opened = Workspace.open(workspace_above(app.index, place), app.home, force=True)
    found = standing_of(app.index, opened)
    incomplete = found.cut_off is not None or bool(found.turn and found.turn.unprotected)
    return Outcome(
        _data(app, opened, place, found),
        lambda out: _show(out, app, opened, place, found),
        Exit.INCOMPLETE if incomplete else Exit.DONE,
    )


def _show_nothing(out: Screen) -> None:
    out.line("Not protected: there is no store yet.")
    out.line(_HOW_TO_BEGIN)


def _show(out: Screen, app: App, opened: Workspace, place: bytes, found: Standing) -> None:
    if found.cut_off is not None:
        out.line(out.style(cut_off_line(app, found.cut_off, opened.path), "red"))
    run = found.run
    if run is None:
        out.line(f"{safe_path(place)} was never protected.")
        out.line(_HOW_TO_BEGIN)
        return
    live = run.status == "running"
    out.line(out.style("Protected now.", "green") if live else "Not protected now: no run is live.")
    _field(out, "run" if live else "last run", run_title(out, run))
    since, until = amounts.clock(run.started_ns), amounts.clock(run.updated_ns)
    _field(out, "since", since if live else f"{since}, last entry {until}")
    if found.turn is not None:
        _show_turn(out, app, run, found.turn)
    if found.restored is not None:
        what, when_ns = found.restored
        _field(out, "since then", f"{safe_text(what)} at {amounts.clock(when_ns)}")
        out.line(f"{'':15}take it back: {app.undo_of(opened.path)}")
    for text in found.not_back:
        _field(out, "not back", safe_text(text), "red")
    if run.view.exclude:
        patterns = ", ".join(safe_text(pattern) for pattern in run.view.exclude)
        _field(out, "excluded", patterns, "yellow")
    for path, why in found.not_captured[:_SHOWN]:
        _field(out, "not captured", f"{safe_path(path)}: {safe_text(why)}", "yellow")
    show_more(out, len(found.not_captured), _SHOWN)
    ended = how_it_ended(run.status, run.view)
    if ended is not None:
        out.paragraph(ended, "red")
    out.lines(going_on(app, run))


def _show_turn(out: Screen, app: App, run: RunRow, turn: TurnRow) -> None:
    if turn.protection is Protection.PENDING and run.status != "running":
        safety = "cut off before its checkpoint"
    else:
        safety = f"checkpoint {sign_text(out, checkpoint_sign(turn, live=True))}"
    _field(out, "latest turn", f"{turn.turn}, {safety}")
    restorable = run.view.restorable
    if restorable is not None and restorable != turn.turn:
        back = app.typed("restore", f"{run.run}@{restorable}")
        how = "" if run.status == "running" else f": {back}"
        _field(out, "restorable", f"up to turn {restorable}{how}")
    for reason in turn.unprotected:
        _field(out, "unprotected", safe_text(reason), "red")


def _field(out: Screen, name: str, text: str, *styles: str) -> None:
    out.paragraph(text, *styles, lead=f"  {name:13}", indent=15)


def _data(app: App, opened: Workspace, place: bytes, found: Standing) -> dict[str, Any]:
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
        "excluded": [] if found.run is None else list(found.run.view.exclude),
        "restore_interrupted": found.cut_off is not None,
        "killed_restore": cut_off_json(app, found.cut_off, opened.path),
        "restored_since": None
        if found.restored is None
        else {"what": found.restored[0], "at": amounts.iso(found.restored[1])},
        "processes_not_back": list(found.not_back),
    }
