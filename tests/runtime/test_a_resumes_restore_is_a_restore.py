"""What a resume puts back, it puts back as `crab restore` does: undoable, and with a report."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Noted
from crabrt.journal import RunIndex
from crabrt.operations.restoring import Restored, undo_restore
from crabrt.runtime import points
from crabrt.store import Store
from crabrt.workspace import Workspace


def agent(ws: Path, die=None, steps: int = 3):
    """Writes a file a step; the second is half done when it dies."""

    @crabrt.model
    def think(n: int) -> str:
        return "ok"

    @crabrt.tool
    def write(n: int) -> None:
        (ws / f"f{n}").write_text("half")
        if die is not None and n == 1:
            (ws / "scratch").write_text("of the killed tool")
            die()
        (ws / f"f{n}").write_text(f"whole {n}")

    @crabrt.agent(workspace=ws, name="writer")
    def run() -> None:
        for n in range(steps):
            think(n)
            write(n)

    return run


def undo(ws: Path, home: Path, *, force: bool = False) -> Restored:
    with Store.open(home) as store, store.writer() as writer, RunIndex.open(home) as index:
        index.refresh()
        return undo_restore(index, writer, Workspace.open(ws, home), force=force)


def names(ws: Path) -> dict[str, str]:
    return {name: (ws / name).read_text() for name in sorted(os.listdir(ws))}


KILLED = {"f0": "whole 0", "f1": "half", "scratch": "of the killed tool"}
DONE = {"f0": "whole 0", "f1": "whole 1", "f2": "whole 2"}


def test_a_resume_that_went_on_to_the_end_can_be_undone_and_redone(
    ws: Path, home: Path, killed, die
) -> None:
    killed(lambda: agent(ws, die)())
    agent(ws).resume("last")
    assert names(ws) == DONE
    undo(ws, home)
    assert names(ws) == KILLED
    undo(ws, home)
    assert names(ws) == DONE


def test_what_a_person_changed_after_the_resumed_run_is_not_undone_unasked(
    ws: Path, home: Path, killed, die
) -> None:
    killed(lambda: agent(ws, die)())
    agent(ws).resume("last")
    (ws / "f1").write_text("mine")
    with pytest.raises(crabrt.WouldLoseChanges):
        undo(ws, home)
    assert names(ws) == DONE | {"f1": "mine"}


def notes(store, topic: str) -> list[tuple[bytes, ...]]:
    return [note.paths for note in store.bodies(Noted) if note.topic == topic]


def test_what_the_killed_tool_left_is_noted_and_no_cause_for_a_warning(
    ws: Path, home: Path, killed, die, store
) -> None:
    killed(lambda: agent(ws, die)())
    agent(ws).resume("last")
    assert notes(store, "put-back") == [(b"f1", b"scratch")]
    assert [note.topic for note in store.turns()[1].notes] == ["put-back"]


def test_work_of_a_person_that_a_resume_overwrites_is_noted_and_told_once(
    ws: Path, home: Path, killed, die, store, monkeypatch
) -> None:
    """No tool was running, so nobody else can have changed the file."""
    died = []

    @crabrt.model
    def think(n: int) -> str:
        if n == 1 and not died:
            die()
        return "ok"

    @crabrt.tool
    def write(n: int) -> None:
        (ws / f"f{n}").write_text(f"whole {n}")

    @crabrt.agent(workspace=ws, name="writer")
    def run() -> None:
        for n in range(2):
            crabrt.current_run().checkpoint()
            think(n)
            write(n)

    killed(run)
    died.append(True)
    (ws / "f0").write_text("mine")
    monkeypatch.setattr("crabrt.runtime.inplace.boot_id", lambda: "another boot")
    with pytest.warns(crabrt.RestoreWarning, match="f0: changed by somebody else") as caught:
        run.resume("last")
    assert len(caught) == 1
    assert "crab undo" in str(caught[0].message)
    assert notes(store, "put-back") == [(b"f0",)]


def test_a_file_that_somebody_holds_open_is_noted_and_told(
    ws: Path, home: Path, killed, die, store
) -> None:
    killed(lambda: agent(ws, die)())
    with (ws / "scratch").open() as held:
        holder = subprocess.Popen(["sleep", "60"], stdin=held)
    try:
        with pytest.warns(crabrt.RestoreWarning, match="scratch: held open"):
            agent(ws).resume("last")
    finally:
        holder.kill()
        holder.wait()
    assert notes(store, "held-open") == [(b"scratch",)]


def test_what_a_rollback_could_not_restore_is_noted_and_told_as_a_loss(
    ws: Path, home: Path, store, monkeypatch
) -> None:
    whole = points.restore

    def partial(*args, **kwargs):
        report = whole(*args, **kwargs)
        return dataclasses.replace(report, not_restored=((b"f1", "the object is damaged"),))

    monkeypatch.setattr(points, "restore", partial)

    def loop() -> None:
        with crabrt.open_run(workspace=ws) as run:
            run.tool_call("write", {}, lambda: (ws / "f1").write_text("x"))
            run.rollback(to=0)

    with pytest.warns(crabrt.UnprotectedWarning, match="f1: not restored: the object is damaged"):
        loop()
    assert notes(store, "not-restored") == [(b"f1",)]


def test_who_may_not_restore_now_is_not_told_to_share(ws: Path, home: Path) -> None:
    """Sharing is for those who open runs."""
    with crabrt.open_run(workspace=ws), pytest.raises(crabrt.WorkspaceBusy) as caught:
        undo(ws, home)
    assert caught.value.hint == "wait for it to end, or stop it"
