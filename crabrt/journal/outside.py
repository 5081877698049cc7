"""Which calls of a turn acted outside, or may have, and how that is known.

A turn that was seen to reach the world has a verdict that says so, and not by which of its calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from crabrt.core.verdicts import Effect, Likely, Prior
from crabrt.journal.views import ToolView, TurnView

DECLARED: Final = "declared"
GUESS: Final = "guess"
SEEN: Final = "seen"


def suspects(turn: TurnView) -> Iterator[tuple[ToolView, str]]:
    """The calls of a turn that left the machine or may have, and how that is known."""
    if Effect.EXTERNAL in turn.verdict and not any(tool.outside for tool in turn.tools):
        # It was seen to reach the world. By which call, the verdict cannot tell either.
        unknown = [tool for tool in turn.tools if _may_be_external(tool)]
        yield from ((tool, SEEN) for tool in unknown or turn.tools)
    for tool in turn.tools:
        if not tool.acted:
            continue
        if tool.prior is Prior.EXTERNAL:
            yield tool, DECLARED
        elif tool.outside and not _was_cleared(turn, tool):
            yield tool, GUESS


def _may_be_external(tool: ToolView) -> bool:
    """As for the verdict: what is known to do something else may connect for that."""
    return tool.prior is Prior.AUTO and tool.guess in {None, Likely.UNKNOWN}


def _was_cleared(turn: TurnView, tool: ToolView) -> bool:
    """Whether the verdict knows that nothing was sent; of what came behind it, it says nothing."""
    decided = bool(turn.verdict) and tool.seq <= turn.position
    return decided and Effect.EXTERNAL not in turn.verdict
