"""What a preview listed, as an id: a restore can be told to do that, or nothing.

Two previews have one id if they list the same, of processes too, and if no run and no restore has
left another state meanwhile. A file that is listed and goes on growing while somebody reads the
list changes nothing: it would be overwritten then, and would be now.
"""

from __future__ import annotations

import msgspec
from blake3 import blake3

from crabrt.core.ids import ObjectId
from crabrt.workspace.restoring.report import RestoreReport
from crabrt.workspace.restoring.scope import Scope

_ID_BYTES = 8  # an agent chooses names, but what it would have to meet is one given id


def preview_id(
    report: RestoreReport, base: ObjectId | None, scope: Scope, processes: object
) -> str:
    """The id of what `report` lists: 16 hex digits.

    Args:
        report: its target, changes and conflicts count.
        base: the state last known.
        scope: the paths that were asked for.
        processes: what happens to them, as msgpack takes it; None: they are left alone.
    """
    changes = [(change.path, change.how) for change in report.changes]
    listed = [report.target, base, scope.paths, changes, report.conflicts, processes]
    return blake3(msgspec.msgpack.encode(listed)).hexdigest(_ID_BYTES)
