"""What can be wrong with a trace file, as errors that say what, in which line, why, and what next.

A file that is something else is a usage error; one that was a trace and is no longer whole is
damage; one of a newer crabrt is `crabrt.FormatTooNew`, as everywhere.
"""

from __future__ import annotations

from crabrt.errors import Damaged, UsageError


class NotATrace(UsageError):
    """The file is not a trace, nor anything that this command knows how to read as one."""

    kind = "not-a-trace"


class DamagedTrace(Damaged):
    """A trace that is cut off, or one of whose lines is not what the schema says."""

    kind = "damaged-trace"
