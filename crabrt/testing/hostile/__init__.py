"""A seeded generator of hostile turns: every way Linux can change a file, on a tree of <= 5 MB.

What it is: a table of small named operations (`OPERATIONS`) and a run of turns made of them
(`HostileRun`), the same for the same seed on the same file system. Some turns change nothing, some
undo within the turn what they did, some write through mappings and descriptors that a process has
kept for several turns.
What it is not: a judge. What a turn really did is for the oracle to say.
Public: `HostileRun`, `Turn`, `Step`, `OPERATIONS`, `GROUNDWORK`, `Operation`, `NotApplicable`.
"""

from crabrt.testing.hostile import content, mapped, metadata, names, nothing, tree
from crabrt.testing.hostile.hand import OPERATIONS, NotApplicable, Operation
from crabrt.testing.hostile.run import HostileRun, Step, Turn

__all__ = ["GROUNDWORK", "OPERATIONS", "HostileRun", "NotApplicable", "Operation", "Step", "Turn"]

# Importing an operations module fills OPERATIONS, like declaring a failpoint does.
_TABLES = (content, mapped, metadata, names, nothing, tree)

GROUNDWORK = (
    "make a directory of many files",
    "make a file",
    "make a sparse file",
    "make a symlink",
    "make a fifo",
    "link a file",
    "make a tree deeper than PATH_MAX",
    "a process starts and maps a file",
    "a process starts and opens a file",
    "set an extended attribute",
    "give a file an ACL",
)
"""Operations that make what the others act on, for who wants to do each of them once."""
