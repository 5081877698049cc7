"""``crab du``: where the bytes are."""

from __future__ import annotations

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.table import Column, render_table
from crabrt.cli.verb import Outcome, verb
from crabrt.cli.verbs.gc import show_kept
from crabrt.operations.measuring import measure, runs_usage
from crabrt.operations.spools import left_behind
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_KINDS = (
    Column("kind"),
    Column("objects", right=True),
    Column("size", right=True),
    Column("stored", right=True),
)
_RUNS = (
    Column("run"),
    Column("turns", right=True),
    Column("stored for it", right=True),
    Column("journal", right=True),
)


@verb(
    "du",
    examples=("crab du", "crab du --live             # also: how much a `crab gc` could reclaim"),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.option("--live", is_flag=True, help="Find what is still referred to (reads all trees).")
def command(app: App, *, live: bool) -> Outcome:
    """Show what the store takes: by kind of object, and by run.

    A run's share is what was stored when its turns were made. Runs share what they have in common,
    so deleting one may free less.
    """
    with app.progress("adding up"):
        usage = measure(app.store, live=live)
        runs = runs_usage(app.store, app.index)
        waiting = left_behind(app.home)
    data = {
        "home": str(app.home),
        "store": msgspec.to_builtins(usage),
        "runs": [
            {
                "run": one.run,
                "name": one.name,
                "turns": one.turns,
                "stored_bytes": one.stored_bytes,
                "journal_bytes": one.journal_bytes,
            }
            for one in runs
        ],
        "spools": [
            {
                "run": one.run,
                "directory": str(one.directory),
                "size_bytes": one.size_bytes,
                "needed": one.is_needed,
            }
            for one in waiting
        ],
        "cap_bytes": app.config.size_cap_bytes,
    }

    def text(out: Screen) -> None:
        kinds = [
            [name, f"{k.objects:,}", amounts.size(k.raw_bytes), amounts.size(k.stored_bytes)]
            for name, k in sorted(usage.kinds.items())
        ]
        out.lines(render_table(out, _KINDS, kinds))
        out.line(
            f"{safe_text(str(app.home))}: {amounts.size(usage.pack_bytes)} in "
            f"{amounts.count(usage.packs, 'pack')}, catalog {amounts.size(usage.catalog_bytes)}, "
            f"cap {amounts.size(app.config.size_cap_bytes)}"
        )
        if usage.live_bytes is not None and usage.dead_bytes is not None:
            live_text, dead = amounts.size(usage.live_bytes), amounts.size(usage.dead_bytes)
            out.line(f"in use {live_text}; nothing refers to {dead} (crab gc)")
        if usage.condemned_bytes:
            out.line(f"condemned, waiting for live writers: {amounts.size(usage.condemned_bytes)}")
        if usage.damaged_bytes:
            out.line(f"set aside by repairs: {amounts.size(usage.damaged_bytes)}")
        unneeded = sum(one.size_bytes for one in waiting if not one.is_needed)
        if unneeded:
            out.line(f"images that killed runs left: {amounts.size(unneeded)} (crab gc)")
        show_kept(out, [one for one in waiting if one.is_needed])
        out.line()
        shares = (
            [
                safe_text(one.run),
                str(one.turns),
                amounts.size(one.stored_bytes),
                amounts.size(one.journal_bytes),
            ]
            for one in runs
        )
        out.lines(render_table(out, _RUNS, shares))

    return Outcome(data, text)
