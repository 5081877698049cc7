"""A run in a few words, for people and as JSON: its row, its title, how to go on. No I/O."""

from __future__ import annotations

from typing import Any

from crabrt.cli import amounts
from crabrt.cli.safe_text import path_fields, safe_path, safe_text
from crabrt.cli.screen import Screen
from crabrt.core.secrets import redact_text
from crabrt.journal import RunRow

STATUS_STYLES = {
    "running": ("green",),
    "done": (),
    "failed": ("red",),
    "crashed": ("yellow",),
    "ended": ("yellow",),
    "forked": ("cyan",),
    "damaged": ("red", "bold"),
}
"""How a run's status is shown."""


def run_json(row: RunRow) -> dict[str, Any]:
    """A run for programs."""
    failure = row.view.failure
    return {
        "run": row.run,
        "name": row.name,
        **path_fields(row.workspace, "workspace"),
        "status": row.status,
        "turns": row.turns,
        "started_at": amounts.iso(row.started_ns),
        "updated_at": amounts.iso(row.updated_ns),
        "parent": row.parent,
        "family": row.family,
        "labels": {label: list(at) for label, at in sorted(row.labels.items())},
        "failure": None if failure is None else {"tag": failure.tag, "message": failure.message},
        "problem": row.problem,
    }


def run_title(out: Screen, row: RunRow) -> str:
    """Which run this is, how it is, where it works, what it came from: one line."""
    status = out.style(row.status, *STATUS_STYLES.get(row.status, ()))
    origin = ""
    if row.parent is not None:
        at = row.view.forked_at
        origin = f", from {safe_text(row.parent)}" + ("" if at is None else f"@{at}")
    return (
        f"{out.style(safe_text(row.run), 'bold')} ({status}) in {safe_path(row.workspace)}{origin}"
    )


_IN_DOUBT = "crabrt.errors.InDoubt"
"""The tag of what ends a resume that only a person can decide about: again, it would end so."""


def how_it_ended(row: RunRow) -> str | None:
    """The exception that ended the run, if one did, on one line; or that its end is missing."""
    failure = row.view.failure
    if row.status == "ended":
        return "It ended, but its end could not be written: the store was full or gone"
    if row.status != "failed" or failure is None:
        return None
    first, *more = redact_text(f"{failure.tag}: {failure.message}").strip().split("\n")
    return f"It ended with {safe_text(first)}{' …' if more else ''}"


def how_to_go_on(row: RunRow) -> str | None:
    """The command that takes the run up again; None where there is nothing to take up."""
    failure = row.view.failure
    if row.status == "failed" and failure is not None and failure.tag == _IN_DOUBT:
        return (
            "Once you know whether it happened, go on from a turn before it: "
            f"crab resume {row.run}@TURN"
        )
    if row.status in {"crashed", "ended", "failed"}:
        return f"Take it up again: crab resume {row.run}"
    return f"Go on in it: crab resume {row.run}" if row.status == "forked" else None
