"""The files of a task as they are compared: by the oracle, without what never is the same."""

from __future__ import annotations

from pathlib import Path

from crabrt.testing import oracle
from crabrt.testing.tasks.task import Task


def digest(task: Task, workspace: Path) -> str:
    """Of all that is state in `workspace`, but times and what the task keeps apart.

    Raises:
        OSError: something cannot be read.
    """
    return oracle.digest_of(oracle.manifest(workspace, task.apart, times=False))
