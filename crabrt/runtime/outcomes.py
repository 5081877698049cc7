"""What a ``check=`` function answers about a call in doubt, and what a skipped call gives."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Final


@dataclasses.dataclass(frozen=True)
class Done:
    """It did happen.

    Attributes:
        result: what the call would have returned.
    """

    result: Any = None


class Doubt(enum.Enum):
    """The other answers."""

    NOT_DONE = "not done"
    UNKNOWN = "unknown"


NOT_DONE: Final = Doubt.NOT_DONE
"""It did not happen: the call may be made."""

UNKNOWN: Final = Doubt.UNKNOWN
"""Nobody can tell: a person has to decide."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What the loop gets for a call that was in doubt and is declared ``in_doubt="skip"``.

    Attributes:
        call: the identity of the call.
    """

    call: str
