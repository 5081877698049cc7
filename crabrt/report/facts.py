"""What the head of a report tells of a run, gathered in one pass over its rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from crabrt.report.lanes import Turn
from crabrt.report.losses import Losses
from crabrt.timeline.rows import Row
from crabrt.timeline.timeline import Timeline
from crabrt.timeline.totals import Figures


@dataclass(slots=True)
class Facts:
    """See the module.

    Attributes:
        state: the run.
        losses: what a restore could not bring back.
        turns: what the lanes need, turn by turn.
        models: which were asked, how often.
        restorable: how many states (turn 0 among them) can be restored.
        longest_ms: the spans of each turn together, for the scale of the bars.
    """

    state: Timeline
    losses: Losses
    turns: list[Turn] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    restorable: int = 0
    longest_ms: list[float] = field(default_factory=list)

    def look_at(self, row: Row, figures: Figures) -> None:
        """Take in a row."""
        self.losses.look_at(row)
        self.turns.append(Turn.of(row, figures))
        self.models.update(one.model for one in row.view.models if one.model)
        self.restorable += row.view.restorable
        ends = (span.start_ms + (span.length_ms or 0.0) for span in row.spans)
        self.longest_ms.append(max(ends, default=0.0))
