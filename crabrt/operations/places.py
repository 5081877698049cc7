"""Opening a workspace from outside of a run, with everything excluded that its runs exclude.

A run may exclude paths in code, where nobody else can read it; excluded paths are never deleted,
so a restore has to know. The workspace's index says under which patterns it was made, and the
journal of a run under which it worked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crabrt.errors import NotFound
from crabrt.journal import RunIndex
from crabrt.workspace import Workspace
from crabrt.workspace.index_file import IndexFile


def open_workspace(path: bytes, home: Path, exclude: Sequence[str] = ()) -> Workspace:
    """The workspace at `path`, excluding what its last run excluded and `exclude` on top.

    A person asked for this very directory, so a home directory or ``/`` is not refused.

    Raises:
        NotFound: it is gone.
        WorkspaceRefused: it is not a directory, not readable, or the store itself.
        StoreUnavailable: its state directory cannot be made.
    """
    workspace = Workspace.open(path, home, force=True, exclude=exclude)
    patterns = dict.fromkeys((*_noted(workspace, home), *exclude))
    return Workspace.open(path, home, force=True, exclude=tuple(patterns))


def _noted(workspace: Workspace, home: Path) -> tuple[str, ...]:
    """The patterns of the index, or where it is lost, of the last run in this workspace."""
    index = IndexFile(workspace.state_dir).load()
    if index is not None:
        # the index keeps patterns as the matcher sees them: a character for each byte
        return tuple(os.fsdecode(p.encode("latin-1")) for p in index.header.excludes)
    try:
        with RunIndex.open(home) as runs:
            runs.refresh()
            views = [row.view for row in runs.runs() if row.workspace_id == workspace.id]
    except NotFound:
        return ()
    return max(views, key=lambda view: view.started_ns).exclude if views else ()
