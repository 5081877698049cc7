"""Opening a workspace from outside of a run, with everything excluded that its runs exclude.

A run may exclude paths in code, where nobody else can read it; excluded paths are never deleted,
so a restore has to know. The workspace's index says under which patterns it was made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

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
    index = IndexFile(workspace.state_dir).load()
    if index is None:
        return workspace
    # the index keeps patterns as the matcher sees them: a character for each byte
    noted = (os.fsdecode(pattern.encode("latin-1")) for pattern in index.header.excludes)
    patterns = dict.fromkeys((*noted, *exclude))
    return Workspace.open(path, home, force=True, exclude=tuple(patterns))
