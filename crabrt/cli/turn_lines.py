"""A turn as a line of ``crab log``, for people and as JSON. No I/O: views in, cells out."""

from __future__ import annotations

from typing import Any

from crabrt.cli.table import Cell, Column
from crabrt.cli.tones import STYLES, sign_cell
from crabrt.core.verdicts import Protection
from crabrt.journal.views import TurnView
from crabrt.timeline import amounts
from crabrt.timeline.marks import Mark
from crabrt.timeline.rows import Row
from crabrt.timeline.safe_text import path_fields, safe_text

COLUMNS = (
    Column("turn", right=True),
    Column("started", spared=1, usual=8),
    Column("took", right=True, spared=6, usual=6),
    Column("verdict", usual=9),
    Column("tools", flexible=True, usual=10),
    Column("files", usual=9),
    Column("stored", right=True, spared=3, usual=8),
    Column("tokens", right=True, spared=4, usual=11),
    Column("cost", right=True, spared=2, usual=7),
    Column("model", right=True, spared=5, usual=6),
    Column("exposed", right=True),
    Column("checkpoint", usual=11),
    Column("marks", flexible=True),
)
"""The heading of ``crab log``."""

_SHOWN_TOOLS = 4
_MARK_INDENT = 4


def turn_row(row: Row) -> list[Cell | str]:
    """The cells of a line, in the order of `COLUMNS`."""
    turn, back = row.view, row.went_back_to
    return [
        str(turn.turn) if back is None else f"{turn.turn}<-{back}",
        amounts.clock(turn.started_ns),
        amounts.duration(row.took_ms),
        sign_cell(row.verdict),
        _tools_cell(row),
        files_text(turn),
        amounts.size(turn.bytes_stored) if turn.bytes_stored else "",
        f"{turn.tokens_in:,}/{turn.tokens_out:,}" if turn.tokens_in or turn.tokens_out else "",
        f"${turn.cost_usd:.4f}" if turn.cost_usd else "",
        amounts.duration(turn.model_wait_ms) if turn.models else "",
        _exposed_cell(turn),
        sign_cell(row.checkpoint),
        Cell(marks_text(turn), ("cyan",)),
    ]


def turn_json(row: Row) -> dict[str, Any]:
    """The same for programs."""
    turn = row.view
    return {
        "turn": turn.turn,
        "base": turn.base,
        "started_at": amounts.iso(turn.started_ns),
        "duration_ms": row.took_ms,
        "verdict": turn.verdict_names,
        "evidence": list(turn.evidence),
        "tools": [{"name": tool.name, "ok": tool.ok} for tool in turn.tools],
        "files_changed": turn.files,
        "files": {
            "added": turn.files_added,
            "changed": turn.files_changed,
            "removed": turn.files_removed,
        },
        "bytes_stored": turn.bytes_stored,
        "tokens_in": turn.tokens_in,
        "tokens_out": turn.tokens_out,
        "cost_usd": turn.cost_usd,
        "model_wait_ms": turn.model_wait_ms,
        "observer": turn.observer,
        "scan_ms": turn.scan_ms,
        "capture_ms": turn.capture_ms,
        "durable_ms": turn.durable_ms,
        "exposed_ms": turn.exposed_ms,
        "frozen_ms": turn.frozen_ms,
        "checkpoint": str(turn.protection),
        "restorable": turn.restorable,
        "thinned": bool(turn.thinned_ns),
        "consistency": str(turn.consistency),
        "unprotected": list(turn.unprotected),
        "unobserved": list(turn.unobserved),
        "not_captured": [{**path_fields(path), "why": why} for path, why in turn.not_captured],
        "inner": [inner.inner for inner in turn.inner],
        "labels": list(turn.labels),
        "pinned": turn.pinned,
        "shared": turn.shared,
        "notes": [{"topic": note.topic, "text": note.text} for note in turn.notes],
    }


def mark_row(mark: Mark) -> Cell:
    """What happened between two turns: a line of its own."""
    sign = mark.sign
    words = f"{sign.text} {mark.about}".rstrip()
    text = f"{'':>{_MARK_INDENT}}{safe_text(words)}  {amounts.clock(mark.wall_ns)}"
    return Cell(text.rstrip(), STYLES[sign.tone])


def mark_json(mark: Mark) -> dict[str, Any]:
    """The same for programs."""
    return {
        "kind": str(mark.kind),
        "after": mark.after,
        "at": amounts.iso(mark.wall_ns) if mark.wall_ns else None,
        "to": mark.to,
        "run": mark.run,
        "text": mark.text,
    }


def files_text(turn: TurnView) -> str:
    """``+2 ~1 -3``; empty when no file changed."""
    counts = (("+", turn.files_added), ("~", turn.files_changed), ("-", turn.files_removed))
    return " ".join(f"{sign}{number}" for sign, number in counts if number)


def marks_text(turn: TurnView) -> str:
    """Labels, pin, and what else sets a turn apart."""
    marks = list(turn.labels)
    if turn.pinned:
        marks.append("(pinned)")
    if turn.shared:
        marks.append("(shared)")
    marks += [f"[{note.topic}]" for note in turn.notes]
    return safe_text(" ".join(marks))


def _tools_cell(row: Row) -> str:
    counts = row.tool_counts()
    named = [(safe_text(name), count) for name, count in list(counts.items())[:_SHOWN_TOOLS]]
    shown = [name if count == 1 else f"{name} x{count}" for name, count in named]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", +{more}" if more > 0 else "")


def _exposed_cell(turn: TurnView) -> Cell:
    if turn.protection is Protection.PENDING and not turn.exposed_ms:
        return Cell("")
    return Cell(
        amounts.duration(turn.exposed_ms), ("yellow",) if turn.exposed_ms >= 1 else ("dim",)
    )
