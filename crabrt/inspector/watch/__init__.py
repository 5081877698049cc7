"""Watching a workspace with fanotify: what changed since it was asked last, without a scan.

What it is: `open_watch`, a `Watch` whose `drain` tells as `Dirty` where something happened and
whose `holders` names the files that change without an event; and `probe`, whether that works here.
It takes root.
What it is not: a judge. It tells where to look; the scan of those places says what changed.
May import: ``crabrt.workspace`` and everything below. docs/internals/watching.md says what is
believed of the kernel, and why.
"""

from crabrt.inspector.watch.dirty import SELF, Dirty, Held, Holders, Watch
from crabrt.inspector.watch.errors import Reason, Unwatchable
from crabrt.inspector.watch.opening import open_watch
from crabrt.inspector.watch.probing import Facts, probe

__all__ = [
    "SELF",
    "Dirty",
    "Facts",
    "Held",
    "Holders",
    "Reason",
    "Unwatchable",
    "Watch",
    "open_watch",
    "probe",
]
