"""Files and trees: one directory, scanned exactly, captured as a Merkle tree, compared, put back.

What it is: `Workspace` (which directory, and who may work in it), `Tracker` (the index: scan and
capture), `diff_roots`, `find_entry` and `read_tree` (states against each other), and `restoring`.
What it is not: anything that knows runs or turns, or decides when a capture is due.
May import: ``crabrt.journal.restores``, ``crabrt.store``, ``crabrt.core``, ``crabrt.errors``,
pathspec, msgspec, blake3, xxhash.
docs/internals/trees.md says what state is and why; docs/internals/index.md when a stat is believed.
"""

from crabrt.workspace.changes import Change
from crabrt.workspace.claims import Claim
from crabrt.workspace.diff import diff_roots, find_entry, read_root, read_tree
from crabrt.workspace.findings import Cancelled, Scan, Suspects
from crabrt.workspace.identity import Workspace
from crabrt.workspace.restoring import (
    RestoreReport,
    recover,
    restore,
    restore_to,
    undo,
)
from crabrt.workspace.tracker import Snapshot, Tracker

__all__ = [
    "Cancelled",
    "Change",
    "Claim",
    "RestoreReport",
    "Scan",
    "Snapshot",
    "Suspects",
    "Tracker",
    "Workspace",
    "diff_roots",
    "find_entry",
    "read_root",
    "read_tree",
    "recover",
    "restore",
    "restore_to",
    "undo",
]
