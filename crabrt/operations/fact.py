"""A fact about this machine: what was probed, how good it is, and what follows for a user."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How good a fact is: ``ok``; ``limited`` (works, less protection or speed); ``bad``."""

    OK = "ok"
    LIMITED = "limited"
    BAD = "bad"


@dataclass(frozen=True)
class Fact:
    """One thing that was probed.

    Attributes:
        name: stable, for programs: ``fanotify``.
        standing: how good it is.
        seen: what the probe saw.
        meaning: what follows from it for a user, one sentence.
        hint: how to get more, or None.
    """

    name: str
    standing: Standing
    seen: str
    meaning: str
    hint: str | None = None
