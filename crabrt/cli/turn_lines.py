"""A turn as a line of ``crab log``, for people and as JSON. No I/O: views in, cells out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from crabrt.cli import amounts
from crabrt.cli.safe_text import path_fields, safe_text
from crabrt.cli.table import Cell, Column
from crabrt.core.verdicts import Consistency, Protection
from crabrt.journal.views import RunView, TurnView

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

_VERDICTS = {
    "none": ("·", "dim"),
    "files": ("F", "yellow"),
    "processes": ("P", "magenta"),
    "external": ("X", "red"),
}
_CHECKPOINTS = {
    "durable": ("●", "green"),
    "replicated": ("●", "green"),
    "inherited": ("○", "green"),
    "captured": ("◐", "cyan"),
    "pending": ("…", "dim"),
    "none": ("-", "dim"),
    "thinned": ("-", "dim"),
    "unprotected": ("✗", "red"),
}
_SHOWN_TOOLS = 4


def with_durations(
    run: RunView, turns: Iterable[TurnView]
) -> Iterator[tuple[TurnView, float | None]]:
    """Each turn with how long it took in ms (None: it is still open, or time went backwards).

    `turns` must follow each other; the last one ends where the run's last entry stands. Time in
    which the run had no owner, between a crash and the resume, does not count.
    """
    before: TurnView | None = None
    for turn in turns:
        if before is not None:
            yield before, _took_ms(run, before.started_ns, turn.started_ns)
        before = turn
    if before is not None:
        yield before, _took_ms(run, before.started_ns, run.updated_ns)


def turn_row(turn: TurnView, took_ms: float | None, *, live: bool = True) -> list[Cell | str]:
    """The cells of a line, in the order of `COLUMNS`; `live`: somebody still works on the run."""
    return [
        str(turn.turn) if turn.base in (turn.turn - 1, turn.turn) else f"{turn.turn}<-{turn.base}",
        amounts.clock(turn.started_ns),
        amounts.duration(took_ms),
        verdict_cell(turn, live=live),
        _tools_cell(turn),
        files_text(turn),
        amounts.size(turn.bytes_stored) if turn.bytes_stored else "",
        f"{turn.tokens_in:,}/{turn.tokens_out:,}" if turn.tokens_in or turn.tokens_out else "",
        f"${turn.cost_usd:.4f}" if turn.cost_usd else "",
        amounts.duration(turn.model_wait_ms) if turn.models else "",
        _exposed_cell(turn),
        checkpoint_cell(turn, live=live),
        Cell(marks_text(turn), ("cyan",)),
    ]


def turn_json(turn: TurnView, took_ms: float | None) -> dict[str, Any]:
    """The same for programs."""
    return {
        "turn": turn.turn,
        "base": turn.base,
        "started_at": amounts.iso(turn.started_ns),
        "duration_ms": took_ms,
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


def verdict_cell(turn: TurnView, *, live: bool = True) -> Cell:
    """Letter and word of what the turn did; a letter each, so that colour is never needed."""
    names = turn.verdict_names
    if turn.turn == 0:
        return Cell("baseline", ("dim",))
    if not names:
        if turn.protection is not Protection.PENDING:
            return Cell("? unknown", ("yellow",))
        return Cell("? not yet" if live else "? cut off", ("dim",))
    letters = "".join(_VERDICTS.get(name, ("?", "dim"))[0] for name in names)
    strongest = next((n for n in ("external", "processes", "files") if n in names), "none")
    return Cell(f"{letters} {'+'.join(safe_text(n) for n in names)}", (_VERDICTS[strongest][1],))


def checkpoint_cell(turn: TurnView, *, live: bool = True) -> Cell:
    """Shape and word of how safe the turn is."""
    word = "thinned" if turn.thinned_ns else str(turn.protection)
    if turn.protection is Protection.PENDING and not live:
        word = "none"
    shape, colour = _CHECKPOINTS.get(word, ("?", "dim"))
    suffix = " (torn)" if turn.consistency is Consistency.TORN else ""
    return Cell(f"{shape} {word}{suffix}", (colour,))


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


def needs_attention(turn: TurnView) -> list[str]:
    """What a person should read below the table about this turn."""
    lines = [f"turn {turn.turn}: unprotected: {reason}" for reason in turn.unprotected]
    lines += [f"turn {turn.turn}: {note.topic}: {note.text}" for note in turn.notes]
    return [safe_text(line) for line in lines]


def _tools_cell(turn: TurnView) -> str:
    counts: dict[str, int] = {}
    for tool in turn.tools:
        mark = "!" if tool.ok is False else "?" if tool.ok is None else ""
        name = safe_text(tool.name) + mark
        counts[name] = counts.get(name, 0) + 1
    shown = [name if n == 1 else f"{name} x{n}" for name, n in list(counts.items())[:_SHOWN_TOOLS]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", +{more}" if more > 0 else "")


def _exposed_cell(turn: TurnView) -> Cell:
    if turn.protection is Protection.PENDING and not turn.exposed_ms:
        return Cell("")
    return Cell(
        amounts.duration(turn.exposed_ms), ("yellow",) if turn.exposed_ms >= 1 else ("dim",)
    )


def _took_ms(run: RunView, start_ns: int, end_ns: int) -> float | None:
    return run.worked_ns(start_ns, end_ns) / 1e6 if end_ns >= start_ns else None
