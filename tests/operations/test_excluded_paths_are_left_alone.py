"""What a run excludes in code is excluded for everybody later, index or no index."""

from __future__ import annotations

from pathlib import Path

import pytest

import crabrt
from crabrt.journal import RunIndex
from crabrt.operations.places import open_workspace
from crabrt.operations.restoring import restore_state
from crabrt.operations.targets import resolve
from crabrt.store import Store


@pytest.mark.parametrize("index_lost", [False, True])
def test_a_restore_never_deletes_what_the_run_excluded(
    index_lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, ws = tmp_path / "home", tmp_path / "ws"
    ws.mkdir()
    monkeypatch.setenv("CRAB_HOME", str(home))

    @crabrt.tool
    def write(name: str) -> None:
        (ws / name).write_text("x")

    @crabrt.agent(workspace=ws, name="excluder", exclude=("*.secret",))
    def run() -> None:
        for name in ("a", "b.secret", "c"):
            write(name)

    run()
    if index_lost:
        for index in home.glob("workspaces/*/index*"):
            index.unlink()
    with Store.open(home) as store, store.writer() as writer, RunIndex.open(home) as runs:
        runs.refresh()
        workspace = open_workspace(bytes(ws), home)
        restore_state(runs, writer, workspace, resolve(runs, "excluder@0"))
    assert [path.name for path in ws.iterdir()] == ["b.secret"]
