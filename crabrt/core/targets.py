"""``RUN@TURN``: how people point at a state. Parsing only; who it means is the journal's to say."""

from __future__ import annotations

import re

import msgspec

from crabrt.core.ids import NAME_PATTERN, valid_name
from crabrt.errors import UsageError

LAST = "last"
"""The run that is meant when somebody says ``last``; no run and no label has that name."""

_INNER = re.compile(r"(\d+)\.(\d+)")


class TurnRef(msgspec.Struct, frozen=True):
    """What stands behind the ``@``: exactly one of a turn number, an inner point, or a label.

    Attributes:
        turn: the number; negative counts turns that can be restored, from the end (-1: the last).
        inner: n of an inner checkpoint ``turn.n``; 0 for the end of the turn.
        label: the label, or None.
    """

    turn: int | None = None
    inner: int = 0
    label: str | None = None

    def __str__(self) -> str:
        if self.label is not None:
            return self.label
        return f"{self.turn}.{self.inner}" if self.inner else str(self.turn)


class Target(msgspec.Struct, frozen=True):
    """A parsed ``RUN[@TURN]``.

    Attributes:
        run: an id, a unique prefix, a name, or ``last``.
        at: the turn, or None where none was given.
    """

    run: str
    at: TurnRef | None = None

    def __str__(self) -> str:
        return self.run if self.at is None else f"{self.run}@{self.at}"


def parse_turn(text: str) -> TurnRef:
    """Parse what stands behind the ``@``.

    Raises:
        UsageError: it is neither a number, nor ``k.n``, nor a legal label.
    """
    if re.fullmatch(r"-?\d+", text):
        return TurnRef(turn=int(text))
    inner = _INNER.fullmatch(text)
    if inner:
        return TurnRef(turn=int(inner[1]), inner=int(inner[2]))
    if valid_name(text):
        return TurnRef(label=text)
    raise UsageError(
        f"{text!r} is not a turn",
        hint="a number, a negative number, k.n, or a label of [A-Za-z0-9._-]",
    )


def parse_target(text: str) -> Target:
    """Parse ``RUN`` or ``RUN@TURN``.

    Raises:
        UsageError: it is malformed.
    """
    run, at, turn = text.partition("@")
    if not NAME_PATTERN.fullmatch(run):
        raise UsageError(f"{text!r} does not name a run", hint="RUN or RUN@TURN, e.g. last@-1")
    if at and not turn:
        raise UsageError(f"{text!r} has nothing behind the @", hint="RUN@TURN, e.g. last@-1")
    return Target(run, parse_turn(turn) if at else None)
