"""What a restore could not bring back, gathered over a run: for the head of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from crabrt.journal.outside import GUESS
from crabrt.report.redaction import Redaction
from crabrt.timeline.rows import Row

LISTED_MOST = 12
_KEPT_MOST = 2_000  # different ones; beyond, they are only counted


@dataclass(slots=True)
class Loss:
    """One kind of it.

    Attributes:
        title: what it is.
        found: what there is to say, to the turns it is about (the first ones).
        count: how often it was met.
    """

    title: str
    found: dict[str, list[int]] = field(default_factory=dict)
    count: int = 0

    def add(self, text: str, turn: int) -> None:
        """Meet it in a turn."""
        self.count += 1
        turns = self.found.get(text)
        if turns is None:
            if len(self.found) < _KEPT_MOST:
                self.found[text] = [turn]
        elif len(turns) < LISTED_MOST and turns[-1] != turn:
            turns.append(turn)


class Losses:
    """All kinds, as rows are shown to it one by one."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._unprotected = Loss("Turns without protection")
        self._external = Loss("Effects outside of the workspace")
        self._not_captured = Loss("Paths that could not be captured")
        self._torn = Loss("Turns whose files moved while they were read")
        self._thinned = Loss("Turns whose files were given up")
        self._unseen = Loss("What could not be looked at")

    def look_at(self, row: Row) -> None:
        """Take in a row."""
        view, line = row.view, self._redaction.line
        for reason in view.unprotected:
            self._unprotected.add(line(reason), row.number)
        if row.is_unprotected and not view.unprotected:
            self._unprotected.add("no checkpoint could be made", row.number)
        for effect in row.effects:
            self._external.add(line(effect.name), row.number)
        for tool, how in row.suspected:
            why = "taken for external" if how == GUESS else "maybe what was seen to reach the world"
            self._external.add(f"{line(tool.name)} ({why})", row.number)
        if "external" in view.verdict and not (row.effects or row.suspected):
            self._external.add("seen, or taken for external", row.number)
        for path, why in view.not_captured:
            self._not_captured.add(f"{self._redaction.path(path)}: {line(why)}", row.number)
        if row.torn:
            self._torn.add("kept changing under every attempt", row.number)
        if view.thinned_ns:
            self._thinned.add(line(view.thinned_why or "retention"), row.number)
        for what in view.unobserved:
            self._unseen.add(line(what), row.number)

    def __iter__(self) -> Iterator[Loss]:
        """Those that were met, the gravest first."""
        every = (
            self._unprotected, self._external, self._not_captured, self._torn, self._thinned,
            self._unseen,
        )  # fmt: skip
        return (loss for loss in every if loss.count)
