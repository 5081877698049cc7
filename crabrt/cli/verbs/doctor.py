"""``crab doctor``: what this machine can and cannot protect, and how to get more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import Config, programs_directory, unknown_variables
from crabrt.errors import NotFound
from crabrt.operations.excludes import Survey, survey
from crabrt.operations.fact import Fact, Standing
from crabrt.operations.facts import Machine, criu_fact, examine
from crabrt.operations.retention import pack_bytes
from crabrt.process.criu import CannotInstall, Criu, Lack, NoCriu, find, install
from crabrt.process.criu.installing import MIRROR
from crabrt.runtime.settings import load_config
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import path_fields, safe_text

_SIGNS = {
    Standing.OK: ("ok", "green"),
    Standing.LIMITED: ("limited", "yellow"),
    Standing.BAD: ("bad", "red"),
}
_INDENT = 25


@verb(
    "doctor",
    examples=("crab doctor", "crab doctor ~/project --json", "crab doctor --install-criu"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND),
)
@click.argument("workspace", type=click.Path(), default=".")
@click.option("--quick", is_flag=True, help="Do not walk the workspace to propose excludes.")
@click.option(
    "--install-criu",
    is_flag=True,
    help="Unpack a CRIU that works, for you alone, where this machine has none; nothing else.",
)
@click.option(
    "--debian-mirror", metavar="URL", default=MIRROR, show_default=True, help="Where from."
)
def command(
    app: App, *, workspace: str, quick: bool, install_criu: bool, debian_mirror: str
) -> Outcome:
    """Probe this machine, the store's place and WORKSPACE: what is protected here, what is not.

    `settings` is what is in force for an agent there, but for the arguments of its decorator.

    Exits with 3 if nothing could be protected as things are. Where the workspace is large it
    proposes excludes, with sizes; what is excluded is not protected, so the choice is yours.

    --install-criu needs root, apt and Debian's keys; packages of the system are not touched. It
    goes into `crabrt/criu` in your data directory (XDG_DATA_HOME).
    """
    if install_criu:
        return _install(app, debian_mirror)
    place = Path(os.fsdecode(app.place(workspace)))
    if not place.is_dir():
        raise NotFound("no such directory", where=workspace)
    config = load_config(place, home=app.home)
    machine = examine(
        config,
        place,
        store_bytes=pack_bytes(app.home),
        criu=_find(config),
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


def _find(config: Config) -> Criu | NoCriu:
    search = os.environ.get("PATH", os.defpath)
    return find(config.criu, programs_directory(), search=search, memory=config.home, anew=True)


def _install(app: App, mirror: str) -> Outcome:
    found = _find(app.config)
    if isinstance(found, NoCriu):
        if found.lack is Lack.PRIVILEGE:
            raise CannotInstall(found.reason, hint="run it as root")
        with app.progress("fetching CRIU"):
            found = install(programs_directory(), mirror=mirror)
    fact = criu_fact(found)
    return Outcome({"facts": [_fact(fact)]}, lambda out: _show_fact(out, fact))


def _show_fact(out: Screen, fact: Fact) -> None:
    word, colour = _SIGNS[fact.standing]
    lead = f"{out.style(f'{word:8}', colour)} {fact.name:15} "
    out.paragraph(safe_text(fact.seen), lead=lead, indent=_INDENT)
    margin = " " * _INDENT
    out.paragraph(safe_text(fact.meaning), "dim", lead=margin, indent=_INDENT)
    if fact.hint:
        hint = f"more: {safe_text(fact.hint)}"
        out.paragraph(hint, "cyan", lead=margin, indent=_INDENT)


def _show(out: Screen, machine: Machine, found: Survey | None) -> None:
    for fact in machine.facts:
        _show_fact(out, fact)
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


def _fact(fact: Fact) -> dict[str, Any]:
    return {
        "name": fact.name,
        "standing": str(fact.standing),
        "seen": fact.seen,
        "meaning": fact.meaning,
        "hint": fact.hint,
    }


def _data(machine: Machine, found: Survey | None, place: Path) -> dict[str, Any]:
    return {
        **path_fields(os.fsencode(place), "workspace"),
        "facts": [_fact(fact) for fact in machine.facts],
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
