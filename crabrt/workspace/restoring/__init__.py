"""Restoring a workspace: in place, elsewhere, taken back, and finished after a crash.

What it is: plan (what to do), handles (where, and never elsewhere), ground (what may be touched),
apply (doing it), finish (proving it), lock and the journal's `restores` (surviving it);
docs/internals/restore.md.
What it is not: the choice of what to restore, or what happens to conversation and processes.
Public: `restore`, `restore_to`, `undo`, `recover`, `RestoreReport`, `Beside`.
May import: the rest of ``crabrt.workspace``, ``crabrt.journal.restores``, ``crabrt.store``,
``crabrt.core``, ``crabrt.errors``.
"""

from crabrt.workspace.restoring.elsewhere import restore_to
from crabrt.workspace.restoring.engine import recover, restore, undo
from crabrt.workspace.restoring.report import RestoreReport
from crabrt.workspace.restoring.session import Beside

__all__ = [
    "Beside",
    "RestoreReport",
    "recover",
    "restore",
    "restore_to",
    "undo",
]
