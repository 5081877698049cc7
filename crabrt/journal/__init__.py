"""The journal: the append-only log of a run, and what can be read from it.

What it is: framing, hash chain, segments and lease of one run; reading and following it; the fold
of its entries into what a person asks about; the projection of all runs that makes asking quick.
What it is not: a place that knows how turns come about (the runtime's) or what a root holds (the
workspace's).

Public: `Lease`, `lease_holder`, `Journal`, `read_journal`, `follow`, `fork_journal`, `cut_journal`,
`History`, the views, `RunIndex`, `inbox`, `references`.
May import: ``crabrt.core``, ``crabrt.errors``; msgspec, xxhash, blake3, sqlite3.
"""

from crabrt.journal.layout import run_dir
from crabrt.journal.lease import Lease, LeaseHolder, lease_holder
from crabrt.journal.reading import Position, PositionLost, Record, follow, read_journal
from crabrt.journal.writing import Journal

__all__ = [
    "Journal",
    "Lease",
    "LeaseHolder",
    "Position",
    "PositionLost",
    "Record",
    "follow",
    "lease_holder",
    "read_journal",
    "run_dir",
]
