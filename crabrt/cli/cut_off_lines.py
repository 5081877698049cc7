"""What is told of a restore that was killed: what it was, and which command finishes it."""

from __future__ import annotations

import os
import re
from typing import Any

from crabrt.cli.app import App
from crabrt.operations.cut_off import CutOff
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text

_RUN = r"([A-Za-z0-9._-]+)"
_OF_A_RUN = re.compile(
    rf"resume {_RUN}|rollback of {_RUN} to .*|{_RUN}: written by the loop itself"
)
_OF_PEOPLE = re.compile(rf"restore ({_RUN}@[0-9.]+)")


def cut_off_line(app: App, found: CutOff, workspace: bytes) -> str:
    """For people, on one line."""
    state = ", its processes are not back" if found.files_done else ""
    how = finishing(app, found, workspace)
    finishes = "the next restore or run" if how is None else f"`{how}`"
    back = f"`{app.undo_of(workspace)}` also takes it back"
    what = safe_text(found.begin.label)
    return f"A restore here was killed (`{what}`){state}: {finishes} finishes it, {back}."


def cut_off_json(app: App, found: CutOff | None, workspace: bytes) -> dict[str, Any] | None:
    """For programs; None: there is none."""
    if found is None:
        return None
    return {
        "what": found.begin.label,
        "at": amounts.iso(found.begin.wall_ns),
        "files_done": found.files_done,
        "finish": finishing(app, found, workspace),
        "undo": app.undo_anywhere(workspace),
    }


def finishing(app: App, found: CutOff, workspace: bytes) -> str | None:
    """The command that finishes it and does no more; None: of an undo there is none such."""
    begin = found.begin
    if run := _OF_A_RUN.fullmatch(begin.label):
        return app.typed("resume", next(filter(None, run.groups())))
    if (state := _OF_PEOPLE.fullmatch(begin.label)) is None:
        return None
    some = [os.fsdecode(os.path.join(workspace, path)) for path in begin.paths[:1]]
    # what it was about is finished first, processes too; what is done then is done already
    only = ["--files-only"] if begin.is_about_processes and not some else []
    return app.typed("restore", *only, state[1], *some)
