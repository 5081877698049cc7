"""A run as the runtime makes it (rolled back, restored, undone, forked, resumed), as it is seen."""

from __future__ import annotations

import os

import pytest

from crabrt.journal import RunIndex
from crabrt.operations.forking import fork_to
from crabrt.operations.restoring import restore_state, undo_restore
from crabrt.operations.targets import resolve
from crabrt.runtime import open_run
from crabrt.store import Store
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.marks import MarkKind
from crabrt.timeline.reader import RunReader
from crabrt.workspace import Workspace


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Nothing of this user's own settings."""
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def workspace(tmp_path):
    path = tmp_path / "ws"
    path.mkdir()
    return path


def act(run, workspace, number, text):
    run.model_call([{"role": "user", "content": f"turn {number}"}], lambda: f"reply {number}")
    run.tool_call("write", {"text": text}, lambda: (workspace / "file").write_text(text))


def kinds(state):
    return [(mark.kind, mark.after, mark.to) for mark in state.marks]


def test_what_happens_to_a_run_and_its_workspace_is_on_its_timeline(home, workspace, tmp_path):
    with (
        open_run(workspace=workspace, home=home, name="real") as run,
        RunFeed(home, run.id) as feed,
    ):
        act(run, workspace, 1, "one")
        act(run, workspace, 2, "two")
        state = feed.read_all()
        assert state.live
        assert state.activity.turn == 2
        run.rollback(to=1)
        act(run, workspace, 4, "other")
        state = feed.read_all()
        assert (MarkKind.ROLLED_BACK, 2, 1) in kinds(state)
        assert state.rows.at(3).went_back_to == 1
    with RunFeed(home, run.id) as feed, Store.open(home) as store, store.writer() as writer:
        state = feed.read_all()
        assert (state.state, kinds(state)[-1]) == ("done", (MarkKind.ENDED, 3, None))
        assert state.rows.at(1).verdict.word == "files"
        reader = RunReader(store, run.id)
        [change] = reader.changed_by(state.rows, 1).items
        assert change.path == b"file"
        texts = [line.text for line in reader.patch(change).lines]
        assert "+one" in texts
        with RunIndex.open(home) as index:
            index.refresh()
            place = Workspace.open(workspace, home)
            restore_state(index, writer, place, resolve(index, f"{run.id}@1"))
            undo_restore(index, writer, place)
            fork = fork_to(store, resolve(index, f"{run.id}@2"), tmp_path / "fork")
        state = feed.read_all()
        restored = next(mark for mark in state.marks if mark.kind is MarkKind.RESTORED)
        assert (restored.after, restored.run, restored.to) == (3, run.id, 1)
        assert kinds(state)[-1] == (MarkKind.UNDONE, 3, None)
        fork_mark = next(mark for mark in state.marks if mark.kind is MarkKind.FORK)
        assert (fork_mark.after, fork_mark.run) == (2, fork.run)
    with RunFeed(home, fork.run) as feed:
        state = feed.read_all()
        assert state.state == "forked"
        assert list(state.rows.numbers) == [0, 1, 2]
        begins = next(mark for mark in state.marks if mark.kind is MarkKind.BEGAN)
        assert (begins.after, begins.run) == (2, run.id)
        assert MarkKind.ROLLED_BACK not in {mark.kind for mark in state.marks}


def test_a_run_that_is_taken_up_again_says_where(home, workspace):
    class Killed(BaseException):
        pass

    def loop(resume=None):
        with open_run(workspace=workspace, home=home, name="real", resume=resume) as run:
            act(run, workspace, 1, "one")
            if resume is None:
                raise Killed
            act(run, workspace, 2, "two")
            return run.id

    with pytest.raises(Killed):
        loop()
    with RunIndex.open(home) as index:
        index.refresh()
        [row] = index.runs()
    assert loop(resume=row.run) == row.run
    with RunFeed(home, row.run) as feed:
        state = feed.read_all()
    assert (state.state, state.rows.numbers[-1]) == ("done", 2)
    assert [mark.kind for mark in state.marks] == [
        MarkKind.ENDED,
        MarkKind.RESUMED,
        MarkKind.ENDED,
    ]
    assert [mark.after for mark in state.marks] == [1, 1, 2]
