"""Why nothing can be watched here, or is watched no longer."""

from __future__ import annotations

from enum import StrEnum

from crabrt.errors import UsageError


class Reason(StrEnum):
    """What stands in the way of watching."""

    PRIVILEGE = "privilege"
    FILE_SYSTEM = "file-system"
    KERNEL = "kernel"
    LIMIT = "limit"
    WORKSPACE = "workspace"


class Unwatchable(UsageError):
    """This workspace cannot be watched: `reason` is for programs, the message for people.

    A usage error where it reaches people: the setting asks for what cannot be had here.
    """

    kind = "unwatchable"

    def __init__(
        self, message: str, reason: Reason, *, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.reason = reason


class SourceLost(Exception):
    """Whoever reads the kernel's queue for a watch is gone, and what it knew with it.

    Never leaves this package: a watch answers it with "unknown" and finds another source.
    """


class Refused(Exception):
    """The process that owns the group cannot serve this workspace; a group of its own can.

    Never leaves this package.
    """
