"""What a run's turns come to, for people and as JSON. No I/O: statistics in, lines out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, render_table
from crabrt.core.verdicts import Likely, Prior
from crabrt.operations.statistics import Statistics, ToolRecord
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_COLUMNS = (
    Column("tool", flexible=True),
    Column("prior"),
    Column("calls", right=True),
    Column("seen in its turns", flexible=True),
    Column("unclear", right=True, spared=1),
    Column("prior right", right=True),
)


def stats_json(stats: Statistics) -> dict[str, Any]:
    """The statistics for programs."""
    exposed = stats.exposed
    return {
        "turns": stats.turns,
        "judged": stats.judged,
        "verdicts": {
            name: {"turns": number, "share": stats.share(name)}
            for name, number in stats.verdicts.items()
        },
        "tools": [
            {
                "name": tool.name,
                "prior": str(tool.prior),
                "guess": None if tool.guess is None else str(tool.guess),
                "calls": tool.calls,
                "observed": dict(tool.observed),
                "unclear": tool.unclear,
                "right": tool.right,
                "wrong": tool.wrong,
                "share_right": tool.share_right,
            }
            for tool in stats.tools
        ],
        "exposed_ms": {
            "p50": exposed.p50_ms,
            "p99": exposed.p99_ms,
            "max": exposed.max_ms,
            "total": exposed.total_ms,
        },
    }


def stats_lines(out: Screen, stats: Statistics) -> Iterator[str]:
    """The statistics for people."""
    yield f"{amounts.count(stats.turns, 'turn')}, {stats.judged:,} of them with a verdict"
    if stats.judged:
        shares = (
            f"{safe_text(name)} {_percent(stats.share(name))} ({number:,})"
            for name, number in stats.verdicts.items()
        )
        yield f"verdicts  {', '.join(shares)}"
    exposed = stats.exposed
    if exposed.max_ms is not None:
        yield (
            f"exposed   p50 {amounts.duration(exposed.p50_ms)}, "
            f"p99 {amounts.duration(exposed.p99_ms)}, max {amounts.duration(exposed.max_ms)}, "
            f"{amounts.duration(exposed.total_ms)} in all"
        )
    if stats.tools:
        yield ""
        yield from render_table(out, _COLUMNS, (_tool_row(tool) for tool in stats.tools))


def _tool_row(tool: ToolRecord) -> list[Cell | str]:
    seen = ", ".join(f"{safe_text(name)} {n:,}" for name, n in tool.observed.most_common())
    judged = tool.right + tool.wrong
    guessed = tool.prior is Prior.AUTO and tool.guess is not None
    if tool.prior is Prior.AUTO and not guessed:
        right = "not declared"
    elif guessed and tool.guess is Likely.UNKNOWN:
        right = "no guess"
    elif not judged and (
        tool.prior is Prior.EXTERNAL or tool.guess in {Likely.EXTERNAL, Likely.PROCESSES}
    ):
        right = "not watched"
    else:
        right = f"{_percent(tool.share_right)} of {judged:,}" if judged else "-"
    wrong = tool.wrong > 0
    return [
        safe_text(tool.name),
        f"{tool.prior}: {tool.guess}" if guessed else str(tool.prior),
        f"{tool.calls:,}",
        seen,
        f"{tool.unclear:,}" if tool.unclear else "",
        Cell(right, ("yellow",) if wrong else ()),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
