"""``crab prune``: thin old turns by a retention policy."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.params import AGE, SIZE
from crabrt.cli.screen import Screen
from crabrt.cli.table import Column, render_table
from crabrt.cli.verb import Outcome, verb
from crabrt.cli.verbs.gc import show_gc
from crabrt.errors import UsageError
from crabrt.operations.retention import Policy, Pruned, RunPlan, apply_plan, make_plan, pack_bytes
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_COLUMNS = (Column("run"), Column("what"), Column("stored for it", right=True))


@verb(
    "prune",
    examples=(
        "crab prune --older-than 14d --dry-run",
        "crab prune --keep-last 10 --keep-per-run 20",
        "crab prune --max-size 5G",
        "crab prune --older-than 90d --drop-runs --yes",
    ),
    exits=(Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.option(
    "--keep-last", type=click.IntRange(min=0), metavar="N", help="Leave the newest N runs."
)
@click.option(
    "--keep-per-run", type=click.IntRange(min=0), metavar="N", help="Keep each run's last N turns."
)
@click.option(
    "--keep-labelled/--no-keep-labelled",
    default=True,
    show_default=True,
    help="Keep labelled turns.",
)
@click.option(
    "--older-than", type=AGE, metavar="AGE", help="Thin only what is older: 12h, 14d, 2w."
)
@click.option("--max-size", type=SIZE, metavar="SIZE", help="Oldest first, until this small: 5G.")
@click.option("--drop-runs", is_flag=True, help="Delete whole ended runs, not only inner turns.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(
    app: App,
    *,
    keep_last: int | None,
    keep_per_run: int | None,
    keep_labelled: bool,
    older_than: float | None,
    max_size: int | None,
    drop_runs: bool,
    dry_run: bool,
    yes: bool,
) -> Outcome:
    """Give up the files of old turns, then collect.

    Conversations stay, so whatever can be resumed still can. Always kept: turn 0, the last
    restorable turn of each run, pinned turns, live runs. At least one of --keep-last,
    --keep-per-run, --older-than and --max-size has to say what may go; several narrow it.
    """
    policy = Policy(
        keep_last=keep_last,
        keep_per_run=keep_per_run,
        keep_labelled=keep_labelled,
        older_than_s=older_than,
        max_bytes=max_size,
        drop_runs=drop_runs,
    )
    if not policy.limits:
        raise UsageError(
            "nothing says what may go",
            hint="--keep-last, --keep-per-run, --older-than or --max-size",
        )
    plan = make_plan(app.index, policy, store_bytes=pack_bytes(app.home))
    if dry_run or not plan.runs:
        pruned = Pruned(plan, None)
    else:
        dropped = sum(one.drop for one in plan.runs)
        question = f"Thin {amounts.count(plan.turns, 'turn')}"
        if dropped:
            question += f" and delete {amounts.count(dropped, 'run')}"
        app.confirm(f"{question}?", yes=yes or not dropped)
        with app.progress("thinning and collecting"):
            pruned = apply_plan(app.store, plan, reason="crab prune")

    def text(out: Screen) -> None:
        if not plan.runs:
            out.line("Nothing to give up.")
            return
        out.lines(render_table(out, _COLUMNS, (_cells(one) for one in plan.runs)))
        if pruned.collected is not None:
            show_gc(out, pruned.collected)
        elif dry_run:
            out.line("Nothing was touched (--dry-run). Turns share files: less may come free.")

    return Outcome(_data(pruned, dry_run=dry_run), text)


def _cells(plan: RunPlan) -> list[str]:
    what = "the whole run" if plan.drop else amounts.count(len(plan.turns), "turn")
    return [safe_text(plan.run), what, amounts.size(plan.bytes_estimate)]


def _data(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    collected = pruned.collected
    return {
        "dry_run": dry_run,
        "runs": [
            {
                "run": plan.run,
                "drop": plan.drop,
                "turns": list(plan.turns),
                "stored_bytes": plan.bytes_estimate,
            }
            for plan in pruned.plan.runs
        ],
        "live": list(pruned.plan.live),
        "collected": None
        if collected is None
        else msgspec.to_builtins(collected)
        | {"missing": [missing.hex() for missing in collected.missing]},
    }
