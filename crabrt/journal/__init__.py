"""The journal: the append-only log of a run, and what can be read from it.

What it is: framing, hash chain, segments and lease of one run; reading and following it; the fold
of its entries into what a person asks about; the projection of all runs that makes asking quick;
and, in ``restores``, the small log of what was restored in a workspace.
What it is not: a place that knows how turns come about (the runtime's) or what a root holds (the
workspace's).

Public: `Lease`, `lease_holder`, `Journal`, `read_journal`, `follow`, `fork_journal`, `cut_journal`,
`History`, the views, `turn_detail`, `RunIndex`, the inbox's functions, `thin_turns`, `references`,
`promised_references`.
May import: ``crabrt.core``, ``crabrt.errors``; msgspec, xxhash, blake3, sqlite3.
"""

from crabrt.journal.details import CallDetail, TurnDetail, turn_detail
from crabrt.journal.forking import fork_journal
from crabrt.journal.history import History, fold
from crabrt.journal.inbox import Marks, label_turn, pin_turn, read_marks, unlabel
from crabrt.journal.index import RunIndex
from crabrt.journal.layout import run_dir
from crabrt.journal.lease import Lease, LeaseHolder, lease_holder
from crabrt.journal.lookup import CheckpointRow, RunRow, TurnRow
from crabrt.journal.promises import promised_references
from crabrt.journal.reading import Position, PositionLost, Record, follow, read_journal
from crabrt.journal.repairing import Cut, cut_journal
from crabrt.journal.retention import references, thin_turns
from crabrt.journal.views import (
    InnerView,
    ModelView,
    MoveView,
    NoteView,
    RunView,
    ToolView,
    TurnView,
)
from crabrt.journal.writing import Journal

__all__ = [
    "CallDetail",
    "CheckpointRow",
    "Cut",
    "History",
    "InnerView",
    "Journal",
    "Lease",
    "LeaseHolder",
    "Marks",
    "ModelView",
    "MoveView",
    "NoteView",
    "Position",
    "PositionLost",
    "Record",
    "RunIndex",
    "RunRow",
    "RunView",
    "ToolView",
    "TurnDetail",
    "TurnRow",
    "TurnView",
    "cut_journal",
    "fold",
    "follow",
    "fork_journal",
    "label_turn",
    "lease_holder",
    "pin_turn",
    "promised_references",
    "read_journal",
    "read_marks",
    "references",
    "run_dir",
    "thin_turns",
    "turn_detail",
    "unlabel",
]
