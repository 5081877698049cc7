"""The fold of a journal into `RunView` and `TurnView`. Pure: records in, values out.

What makes it more than a table of handlers (`fold_runs`, `fold_calls`, `fold_states`):

* Entries about turn k arrive after turn k+1 opened (its verdict, its checkpoint): they name their
  turn themselves. A call belongs to the turn in which it was first made.
* A call that ran again on resume has several results and is one call; the last result counts.
* ``superseded`` and ``forked`` say that calls behind a place never happened (here): they go, and
  turns opened behind it with them. External calls stay: they did happen.
* Nobody worked on the run between the last entry of one owner and the first of the next: what
  took that long was not the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from crabrt.core.entries import Body
from crabrt.journal import fold_calls, fold_runs, fold_states
from crabrt.journal.reading import Record
from crabrt.journal.turntable import Fold

_HANDLERS: dict[type[Body], Callable[[Fold, Any, Record], None]] = {
    **fold_runs.HANDLERS,
    **fold_calls.HANDLERS,
    **fold_states.HANDLERS,
}


class History(Fold):
    """The fold. Feed it the records of one journal, in order."""

    def feed(self, record: Record) -> None:
        """Take in the next entry.

        Raises:
            DamagedJournal: it contradicts itself.
        """
        self.where = f"{record.segment}:{record.offset}"
        body, state = record.body, self.state
        if state.after is not None and record.segment.epoch != state.after.epoch:
            gap = (self.run.updated_ns, record.entry.wall_ns)
            self.edit_run(gaps=(*self.run.gaps, gap))
        if body is not None:
            handler = _HANDLERS.get(type(body))
            if handler is not None:
                handler(self, body, record)
        state.after = record.position
        state.run = replace(state.run, updated_ns=record.entry.wall_ns)


def fold(records: Iterable[Record]) -> History:
    """The history of a whole journal.

    Raises:
        DamagedJournal, FormatTooNew, NotFound, StoreUnavailable: as `reading.read_journal`.
    """
    history = History()
    for record in records:
        history.feed(record)
    return history
