"""``crab doctor``: what this machine can and cannot protect, and how to get more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from crabrt.cli import amounts
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.safe_text import path_fields, safe_text
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import unknown_variables
from crabrt.errors import NotFound
from crabrt.operations.excludes import Survey, survey
from crabrt.operations.fact import Standing
from crabrt.operations.facts import Machine, examine
from crabrt.operations.retention import pack_bytes
from crabrt.runtime.settings import load_config

_SIGNS = {
    Standing.OK: ("ok", "green"),
    Standing.LIMITED: ("limited", "yellow"),
    Standing.BAD: ("bad", "red"),
}
_INDENT = 25


@verb(
    "doctor",
    examples=("crab doctor", "crab doctor ~/project --json"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND),
)
@click.argument("workspace", type=click.Path(), default=".")
@click.option("--quick", is_flag=True, help="Do not walk the workspace to propose excludes.")
def command(app: App, *, workspace: str, quick: bool) -> Outcome:
    """Probe this machine, the store's place and WORKSPACE: what is protected here, what is not.

    `settings` is what is in force for an agent there, but for the arguments of its decorator.

    Exits with 3 if nothing could be protected as things are. Where the workspace is large it
    proposes excludes, with sizes; what is excluded is not protected, so the choice is yours.
    """
    place = Path(os.fsdecode(app.place(workspace)))
    if not place.is_dir():
        raise NotFound("no such directory", where=workspace)
    machine = examine(
        load_config(place, home=app.home),
        place,
        store_bytes=pack_bytes(app.home),
        criu_program=shutil.which("criu"),
        unknown_variables=unknown_variables(),
    )
    found = None
    if not quick:
        with app.progress("looking at the workspace") as progress:
            found = survey(os.fsencode(place), progress)
    bad = any(fact.standing is Standing.BAD for fact in machine.facts)
    return Outcome(
        _data(machine, found, place),
        lambda out: _show(out, machine, found),
        Exit.INCOMPLETE if bad else Exit.DONE,
    )


def _show(out: Screen, machine: Machine, found: Survey | None) -> None:
    for fact in machine.facts:
        word, colour = _SIGNS[fact.standing]
        lead = f"{out.style(f'{word:8}', colour)} {fact.name:15} "
        out.paragraph(safe_text(fact.seen), lead=lead, indent=_INDENT)
        margin = " " * _INDENT
        out.paragraph(safe_text(fact.meaning), "dim", lead=margin, indent=_INDENT)
        if fact.hint:
            hint = f"more: {safe_text(fact.hint)}"
            out.paragraph(hint, "cyan", lead=margin, indent=_INDENT)
    out.line()
    out.line(out.style("Protected here:", "bold"))
    for line in machine.protected:
        out.paragraph(line, lead="  + ", indent=4)
    out.line(out.style("Not protected:", "bold"))
    for line in machine.unprotected:
        out.paragraph(line, lead="  - ", indent=4)
    if found is not None:
        _show_survey(out, found)


def _show_survey(out: Screen, found: Survey) -> None:
    out.line()
    out.line(
        f"The workspace has {found.entries:,} entries, {amounts.size(found.size_bytes)}"
        + (f"; {found.unreadable:,} could not be read." if found.unreadable else ".")
    )
    if found.proposals:
        out.paragraph(
            "Its first checkpoint takes a while. These could be made again by a tool; lines for "
            ".crabignore, if you can do without their protection:"
        )
        for one in found.proposals:
            size = f"{one.entries:,} entries, {amounts.size(one.size_bytes)}"
            out.line(f"  {safe_text(one.pattern)}    # {size}: {one.why}")


def _data(machine: Machine, found: Survey | None, place: Path) -> dict[str, Any]:
    return {
        **path_fields(os.fsencode(place), "workspace"),
        "facts": [
            {
                "name": fact.name,
                "standing": str(fact.standing),
                "seen": fact.seen,
                "meaning": fact.meaning,
                "hint": fact.hint,
            }
            for fact in machine.facts
        ],
        "protected": list(machine.protected),
        "not_protected": list(machine.unprotected),
        "entries": None if found is None else found.entries,
        "size_bytes": None if found is None else found.size_bytes,
        "proposed_excludes": []
        if found is None
        else [
            {
                **path_fields(one.path),
                "pattern": one.pattern,
                "entries": one.entries,
                "size_bytes": one.size_bytes,
                "why": one.why,
            }
            for one in found.proposals
        ],
    }
