"""A CRIU that can be used, or why there is none: values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

INSTALL_HINT: Final = "`crab doctor --install-criu` unpacks one that works, for you alone"


class Lack(StrEnum):
    """What is missing, for programs."""

    MISSING = "missing"
    """There is no CRIU."""
    TOO_OLD = "too-old"
    """It is there, and a newer one would work where it does not."""
    PRIVILEGE = "privilege"
    """It takes root."""
    BROKEN = "broken"
    """It does not start, hangs, or is something else."""
    KERNEL = "kernel"
    """It was tried here, and failed."""


@dataclass(frozen=True)
class Criu:
    """A CRIU that imaged a process on this machine and brought it back.

    Attributes:
        program: its absolute path.
        version: of three numbers.
        noted_in: where it is remembered that it works (`remembering`); None: it is not.
    """

    program: Path
    version: tuple[int, int, int]
    noted_in: Path | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """As people call it."""
        return f"CRIU {'.'.join(map(str, self.version))} ({self.program})"


@dataclass(frozen=True)
class NoCriu:
    """Processes cannot be imaged here.

    Attributes:
        lack: what is missing.
        reason: for people: one clause, without a hint.
        hint: what to do, or None where nothing helps.
    """

    lack: Lack
    reason: str
    hint: str | None
