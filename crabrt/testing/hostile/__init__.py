"""A seeded generator of hostile turns: every way Linux can change a file, on a tree of <= 5 MB.

What it is: a table of small named operations (`OPERATIONS`) and a run of turns made of them
(`HostileRun`), the same for the same seed on the same file system. Some turns change nothing, some
undo within the turn what they did, some write through mappings and descriptors that a process has
kept for several turns.
What it is not: a judge. What a turn really did is for the oracle to say.
Public: `HostileRun`, `Turn`, `Step`, `OPERATIONS`, `Operation`, `NotApplicable`.
"""

from crabrt.testing.hostile import content, mapped, metadata, names, nothing, tree
from crabrt.testing.hostile.hand import OPERATIONS, NotApplicable, Operation
from crabrt.testing.hostile.run import HostileRun, Step, Turn

__all__ = ["OPERATIONS", "HostileRun", "NotApplicable", "Operation", "Step", "Turn"]

# Importing an operations module fills OPERATIONS, like declaring a failpoint does.
_TABLES = (content, mapped, metadata, names, nothing, tree)
