"""What the loop and its journal are told of a restore that a run did on its own.

A resume and a rollback put files back with nobody looking on. What `crab restore` would list (other
people's changes that were overwritten, what could not be restored, who goes on with an old file)
is noted in the journal, where ``crab log`` and ``crab show`` read it; and what nobody would expect
is told to the loop once, as a warning.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from crabrt.core.entries import Noted
from crabrt.runtime.session import Session
from crabrt.workspace import RestoreReport

_NAMED = 3


def tell_restored(
    session: Session, report: RestoreReport, turn: int, *, doing: str, theirs: str | None
) -> None:
    """Journal what `report` says beyond its success, under `turn`, and have the loop warned.

    Args:
        session: the run that restored.
        report: of the restore.
        turn: which turn's state was restored.
        doing: what it was ("the resume").
        theirs: what to say of paths that changed since the last checkpoint and were overwritten;
            None where that is expected (it was a killed tool's work): it is noted, and no more.
    """
    undo = "`crab undo` brings them back"
    if report.conflicts:
        text = f"{theirs or 'changed since the last checkpoint, put back'}; {undo}"
        _note(session, "put-back", text, report.conflicts, turn)
        if theirs is not None:
            session.losses.mention(f"{doing}: {_paths(report.conflicts)}: {theirs}; {undo}")
    if report.held_open:
        text = "held open by another process, which goes on with the old file"
        _note(session, "held-open", text, report.held_open, turn)
        session.losses.mention(f"{doing}: {_paths(report.held_open)}: {text}")
    if report.own_code:
        text = "code of this very program, which may have loaded it before it was put back"
        _note(session, "own-code", text, report.own_code, turn)
        session.losses.mention(f"{doing}: {_paths(report.own_code)}: {text}")
    if report.not_restored:
        paths = tuple(path for path, _ in report.not_restored)
        reasons = sorted({why for _, why in report.not_restored})
        text = f"not restored: {'; '.join(reasons[:_NAMED])}"
        _note(session, "not-restored", text, paths, turn)
        session.losses.add(f"{doing}: {_paths(paths)}: {text}")


def tell_recovered(session: Session) -> None:
    """The same of a killed restore that was finished before this run could begin."""
    report = session.engine.recovered
    if report is None:
        return
    kept = dataclasses.replace(report, conflicts=())
    if report.conflicts:
        text = "changed by somebody else since that restore was killed, left alone"
        _note(session, "kept", text, report.conflicts, session.machine.turn)
    tell_restored(
        session, kept, session.machine.turn, doing="a killed restore, finished now", theirs=None
    )


def _note(session: Session, topic: str, text: str, paths: Sequence[bytes], turn: int) -> None:
    session.append(Noted(topic, f"{_paths(paths)}: {text}", tuple(paths)), turn=turn)


def _paths(paths: Sequence[bytes]) -> str:
    shown = ", ".join(os.fsdecode(path) for path in paths[:_NAMED])
    more = len(paths) - _NAMED
    text = f"{shown} and {more} more" if more > 0 else shown
    return text.encode("utf-8", "backslashreplace").decode()
