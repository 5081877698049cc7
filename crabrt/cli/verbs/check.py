"""``crab check``: verify the store and every journal."""

from __future__ import annotations

from collections.abc import Sequence

import click

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.operations.checking import check_everything
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_SHOWN = 50


@verb(
    "check",
    examples=("crab check", "crab check --read-data       # re-hash every byte"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.option("--read-data", is_flag=True, help="Also read and re-hash every object.")
def command(app: App, *, read_data: bool) -> Outcome:
    """Verify packs, catalog, every journal's hash chain, and that all they refer to is there.

    Changes nothing. Damage is listed with the turns that it affects, and the exit code is 7; it is
    3 when all is whole but others may look into the store. What was stored and not durable yet when
    the power was lost is no damage: it is only mentioned.
    """
    with app.progress("checking") as progress:
        health = check_everything(app.store, read_data=read_data, progress=progress)
    packs = health.store
    data = {
        "healthy": not health.troubles,
        "packs": packs.packs,
        "objects": packs.objects,
        "size_bytes": packs.size_bytes,
        "bytes_read": packs.bytes_read,
        "runs": health.runs,
        "problems": [
            {"area": one.area, "where": one.where, "text": one.text} for one in health.troubles
        ],
        "affected": list(health.affected),
        "unrevivable": list(health.unrevivable),
        "not_durable": [one.where for one in health.not_durable],
        "lost": list(health.lost),
    }

    def text(out: Screen) -> None:
        out.line(
            f"{amounts.count(packs.packs, 'pack')}, {amounts.count(packs.objects, 'object')}, "
            f"{amounts.count(health.runs, 'run')}; "
            + (f"{amounts.size(packs.bytes_read)} re-hashed" if read_data else "structure only")
        )
        if health.not_durable:
            missing = amounts.count(len(health.not_durable), "object")
            was = "was" if len(health.not_durable) == 1 else "were"
            of = f" (of {_names(health.lost)})" if health.lost else ""
            out.paragraph(
                f"{missing}{of} {was} not durable yet when the power was lost. No checkpoint had "
                "promised otherwise: this is no damage.",
                "yellow",
            )
        if not health.troubles:
            out.line(out.style("No problems.", "green"))
            return
        for one in health.troubles[:_SHOWN]:
            where = safe_text(one.where)
            out.line(out.style(f"{one.area}: {where}: {safe_text(one.text)}", "red"))
        if len(health.troubles) > _SHOWN:
            out.line(f"... and {len(health.troubles) - _SHOWN} more (--json lists all)")
        if health.affected:
            out.line(f"Affected: {_names(health.affected)}")
        if health.unrevivable:
            names = _names(health.unrevivable)
            out.line(f"Their files can be restored, and their processes cannot: {names}")
        out.paragraph(
            "What can be put right is put right by: crab repair"
            if health.repairable
            else "What is lost cannot be brought back. All other turns can be restored; runs that "
            "are no longer needed go with: crab rm"
        )

    damaged = any(one.area != "mode" for one in health.troubles)
    careless = Exit.INCOMPLETE if health.troubles else Exit.DONE
    return Outcome(data, text, Exit.DAMAGED if damaged else careless)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
