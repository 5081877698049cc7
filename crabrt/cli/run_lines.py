"""A run in a few words, for people and as JSON: its row, its title. No I/O."""

from __future__ import annotations

from typing import Any

from crabrt.cli.screen import Screen
from crabrt.cli.tones import STYLES
from crabrt.journal import RunRow
from crabrt.timeline import amounts
from crabrt.timeline.runs import state_of
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text
from crabrt.timeline.signs import run_sign


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
    sign = run_sign(state_of(row))
    status = out.style(safe_text(sign.word), *STYLES[sign.tone])
    origin = ""
    if row.parent is not None:
        at = row.view.forked_at
        origin = f", from {safe_text(row.parent)}" + ("" if at is None else f"@{at}")
    return (
        f"{out.style(safe_text(row.run), 'bold')} ({status}) in {safe_path(row.workspace)}{origin}"
    )
