"""Entries that the journal could not take, until it can be written again.

What is known of them decides what a resume may believe. Calls that were stopped before they acted
changed nothing, so it does not matter when they are journalled: that is made up for, and nothing is
missing. If a call that acted is among them, or a model's reply, the state and the record have
parted: then a note says that there is a gap, and a resume does not go past it.
"""

from __future__ import annotations

from msgspec.structs import replace

from crabrt.core.entries import Body, Intent, Noted, Payload, Result
from crabrt.journal import Journal
from crabrt.runtime.recovery import GAP, OF_CALLS

_MOST = 10_000
"""Entries that are kept; a loop that does nothing but try again stays in bounds."""


class Unwritten:
    """What is missing at the end of one journal. Its owner's lock guards it."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._kept: list[tuple[Body, int]] = []
        self._acted = False

    def add(self, body: Body, turn: int, error: BaseException) -> None:
        """`body`, of `turn`, could not be written."""
        if not isinstance(body, OF_CALLS):
            return
        article = "an" if body.kind[0] in "aeiou" else "a"
        self._first = self._first or f"{article} {body.kind} of turn {turn}: {error}"
        harmless = isinstance(body, Intent) or _did_nothing(body)
        self._acted = self._acted or not harmless or len(self._kept) >= _MOST
        if self._acted:
            self._kept.clear()
        else:
            self._kept.append((body, turn))

    def settle(self, journal: Journal, turn: int, coming: Body | None = None) -> None:
        """Write what is missing, or that something is.

        Args:
            journal: can be written again, as it seems.
            turn: the open one.
            coming: the entry that is written next; it may say that a call did nothing.

        Raises:
            CrabError: it still cannot be written.
        """
        if self._first is None:
            return
        if self._all_stopped(coming):
            while self._kept:
                body, of_turn = self._kept[0]
                journal.append(_without_objects(body), turn=of_turn)
                del self._kept[0]
        else:
            journal.append(Noted(GAP, f"not recorded: {self._first}"), turn=turn)
        self._first, self._acted = None, False
        self._kept.clear()

    def _all_stopped(self, coming: Body | None) -> bool:
        """Whether every call that is missing something is known to have done nothing."""
        told = (*(body for body, _ in self._kept), coming)
        stopped = {body.call for body in told if isinstance(body, Result) and not body.acted}
        return not self._acted and all(
            body.call in stopped for body, _ in self._kept if isinstance(body, Intent)
        )


def _did_nothing(body: Body) -> bool:
    return isinstance(body, Result) and not body.acted


def _without_objects(body: Body) -> Body:
    """The entry naming nothing in the store: what was put for it may be lost."""
    if isinstance(body, Intent) and body.arguments.content is not None:
        return replace(body, arguments=Payload(missing="the store could not be written"))
    return body
