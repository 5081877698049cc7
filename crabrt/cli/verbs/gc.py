"""``crab gc``: reclaim what nothing refers to."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.core.config import runtime_directory
from crabrt.operations.roots import collect_garbage
from crabrt.operations.spools import Left, drop_unneeded, left_behind
from crabrt.process.shell.leftovers import sweep
from crabrt.store.gc import GcReport
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text


@verb(
    "gc",
    examples=("crab gc", "crab gc --dry-run"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def command(app: App, *, dry_run: bool) -> Outcome:
    """Reclaim the space of what no run, undo point or index refers to. Safe beside running agents.

    While agents run, space comes back in two steps: packs are condemned first and removed by a
    later `crab gc`, when every live writer knows. Deletes nothing while a journal is damaged.
    """
    with app.progress("looking for what nothing refers to"):
        report = collect_garbage(
            app.store, undo_keep_days=app.config.undo_keep_days, dry_run=dry_run
        )
        dropped = drop_unneeded(app.home, dry_run=dry_run)
        if not dry_run:
            sweep(os.fsencode(runtime_directory()))
        kept = [one for one in left_behind(app.home) if one.is_needed]
    data = msgspec.to_builtins(report) | {
        "missing": [missing.hex() for missing in report.missing],
        "spools_removed_bytes": sum(one.size_bytes for one in dropped),
        "spools_kept_bytes": sum(one.size_bytes for one in kept),
    }

    def text(out: Screen) -> None:
        show_gc(out, report)
        if dropped:
            would = "would be " if dry_run else ""
            size = amounts.size(sum(one.size_bytes for one in dropped))
            out.line(f"{size} of images that killed runs had left {would}removed.")
        show_kept(out, kept)

    incomplete = report.missing or report.problem
    return Outcome(data, text, Exit.INCOMPLETE if incomplete else Exit.DONE)


def show_kept(out: Screen, kept: Sequence[Left]) -> None:
    """Images of killed runs that wait to be stored, for people."""
    for run in dict.fromkeys(one.run for one in kept):
        mine = [one for one in kept if one.run == run]
        where = safe_text(str(mine[0].directory.parent))
        size = amounts.size(sum(one.size_bytes for one in mine))
        out.line(
            f"{size} of images of {run} wait in {where}: `crab resume {run}` goes on from them,"
            f" `crab rm {run}` drops them."
        )


def show_gc(out: Screen, report: GcReport) -> None:
    """A collection for people."""
    would = "would be " if report.dry_run else ""
    out.line(
        f"{amounts.count(report.packs_removed, 'pack')} {would}removed"
        f" ({amounts.size(report.bytes_removed)}),"
        f" {amounts.count(report.packs_rewritten, 'sparse pack')} {would}rewritten;"
        f" {amounts.size(report.live_bytes)} in use."
    )
    if report.packs_condemned:
        out.line(
            f"{amounts.count(report.packs_condemned, 'pack')}"
            f" ({amounts.size(report.bytes_condemned)}) condemned:"
            " they go with a later `crab gc`, once the live writers know."
        )
    if report.waiting_for:
        out.line(f"Waiting for processes: {', '.join(map(str, report.waiting_for))}")
    if report.problem:
        out.line(out.style(f"Sparse packs stay as they are: {report.problem}", "yellow"))
    if report.missing:
        missing = amounts.count(len(report.missing), "object")
        out.line(out.style(f"{missing} referred to are missing: crab check", "red"))
