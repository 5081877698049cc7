"""Restores in a process of its own, which a test kills: PATH HOME TARGET [PATH-SCOPE]."""

import os
import sys
from pathlib import Path

from crabrt.store import Store
from crabrt.workspace import Workspace, recover, restore

path, home, target, *scope = sys.argv[1:]
with Store.open(Path(home)) as store:
    writer = store.writer()
    workspace = Workspace.open(path, Path(home))
    if target == "recover":
        recover(workspace, writer)
    else:
        restore(
            workspace,
            writer,
            bytes.fromhex(target),
            base=None,
            paths=[os.fsencode(name) for name in scope],
        )
    writer.close()
