"""What stands above a timeline: how the run is, what its turns come to, two small plots."""

from __future__ import annotations

import os
import time

from rich.cells import cell_len

from crabrt.core.verdicts import Protection
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Tone
from crabrt.timeline.timeline import Timeline
from crabrt.tui.lines import activity_words
from crabrt.tui.pieces import Line, Piece, cut, joined, sign_piece, width_of
from crabrt.tui.plots import sparkline

_PLOTS = (("waited", "model_us"), ("tools", "tool_us"), ("stored", "bytes_stored"))


def summary_lines(state: Timeline, width: int, home_dir: str = "", page: int = 0) -> list[Line]:
    """The lines above a timeline of `width` cells: always the same number.

    Args:
        state: the run.
        width: cells.
        home_dir: the user's, to be shown as ``~``.
        page: of the columns below: on the second one the totals that are cut on the first stand
            first, and so on.
    """
    if state.gone:
        gone = Piece("this run was deleted; what had been read of it is still shown", Tone.BAD)
        return [cut((*_who(state, home_dir), Piece("  "), gone), width), (), ()]
    return [
        cut(
            joined(
                [_who(state, home_dir), _problem(state) or _reading(state) or _now(state)], "   "
            ),
            width,
        ),
        _totals(state, width, page),
        _plots(state, width),
    ]


def _who(state: Timeline, home_dir: str) -> Line:
    workspace = safe_path(state.view.workspace_path) if state.view.workspace_path else ""
    if home_dir and (workspace + os.sep).startswith(home_dir + os.sep):
        workspace = "~" + workspace[len(home_dir) :]
    name = Piece(safe_text(state.view.run or state.run), strong=True)
    if not state.state:
        return (name,)
    return (name, Piece("  "), sign_piece(state.sign), Piece(f"  {workspace}", Tone.QUIET))


def _problem(state: Timeline) -> Line:
    if not state.problems:
        return ()
    problem = state.problems[0]
    return (Piece("! " + safe_text(problem.message), Tone.BAD),)


def _reading(state: Timeline) -> Line:
    if state.reading is None:
        return ()
    return (Piece(f"reading {state.reading.share:.0%}", Tone.NEWS),)


def _now(state: Timeline) -> Line:
    """What it does right now."""
    if state.activity is None:
        return ()
    since_ms = max(0.0, (time.time_ns() - state.activity.since_ns) / 1e6)
    return activity_words(state.activity, since_ms)


def _totals(state: Timeline, width: int, page: int) -> Line:
    parts = [_turns(state), _times(state), _spent(state)]
    whole = joined(parts, "   ")
    if width_of(whole) > width:
        first = (-page) % len(parts)
        whole = joined(parts[first:] + parts[:first], "   ")
    return cut(whole, width)


def _turns(state: Timeline) -> Line:
    totals = state.totals
    found = [Piece(amounts.count(totals.turns, "turn"))]
    found.append(Piece(f"  +{totals.added} ~{totals.changed} -{totals.removed}", Tone.FILES))
    if totals.effects:
        found.append(Piece(f"  X {amounts.count(totals.effects, 'effect')}", Tone.EXTERNAL))
    if totals.suspected:
        found.append(Piece(f"  ? {totals.suspected} likely", Tone.EXTERNAL))
    if totals.unprotected:
        found.append(Piece(f"  ✗ {totals.unprotected} unprotected", Tone.BAD))
    newest = state.rows.at(state.rows.numbers[-1]) if state.rows.numbers else None
    if newest is not None and newest.view.protection is not Protection.PENDING:
        found += [Piece("  newest "), sign_piece(newest.checkpoint)]
    return tuple(found)


def _times(state: Timeline) -> Line:
    view, totals = state.view, state.totals
    if not view.started_ns:
        return ()
    until = time.time_ns() if state.live else view.updated_ns
    took = max(0.0, view.worked_ns(view.started_ns, until) / 1e6)
    found = [Piece(amounts.duration(took))]
    if took:
        found.append(Piece(f"  model {totals.model_ms / took:.0%}", Tone.QUIET))
        found.append(Piece(f"  tools {totals.tool_ms / took:.0%}", Tone.QUIET))
    if totals.exposed_ms >= 1:
        held = f"  held {amounts.duration(totals.exposed_ms)}"
        found.append(Piece(held, Tone.WARNING))
    return tuple(found)


def _spent(state: Timeline) -> Line:
    totals = state.totals
    found = [Piece(f"{amounts.size(totals.bytes_stored)} stored")]
    if totals.tokens_in or totals.tokens_out:
        found.append(Piece(f"  {totals.tokens_in:,} + {totals.tokens_out:,} tokens", Tone.QUIET))
    if totals.cost_usd:
        found.append(Piece(f"  ${totals.cost_usd:,.2f}", Tone.QUIET))
    return tuple(found)


def _plots(state: Timeline, width: int) -> Line:
    """As many plots as there is room for, side by side, each with its name."""
    room = max(1, min(len(_PLOTS), width // 26))
    found: list[Line] = []
    for name, figure in _PLOTS[:room]:
        columns = width // room - cell_len(name) - 4
        points = state.rows.series(figure, max(1, columns))
        line = sparkline(points.values, columns)
        found.append((Piece(f"{name} ", Tone.QUIET), Piece(line.ljust(columns), Tone.NEWS)))
    return cut(joined(found, "   "), width)
