import os
import signal
import subprocess
import sys

import pytest

from crabrt.core.config import Config
from crabrt.core.targets import parse_target
from crabrt.errors import NotFound, RunBusy, UsageError, WouldLoseChanges
from crabrt.journal import RunIndex
from crabrt.operations.comparing import compare_with_workspace
from crabrt.operations.forking import fork_in_place
from crabrt.operations.restoring import restore_state, scoped_paths, undo_restore
from crabrt.operations.scratch import ScratchWriter
from crabrt.operations.targets import resolve, resolve_turn
from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.workspace import Workspace, diff_roots


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


@pytest.fixture
def index(run, home):
    with RunIndex.open(home) as index:
        index.refresh()
        yield index


@pytest.fixture
def store(run, home):
    with Store.open(home) as store:
        yield store


def test_a_bare_run_means_its_latest_restorable_turn(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.unprotected_turn("disk full")
    run.close()
    with RunIndex.open(home) as index:
        index.refresh()
        assert resolve(index, "last").turn == 3
        assert resolve_turn(index, "last")[1].turn == 4
        with pytest.raises(NotFound, match="disk full"):
            resolve(index, "last@4")
        state = resolve(index, parse_target(f"{run.run}@-1"))
        assert state.name == f"{run.run}@3"
        assert state.skipped == (4,)
        assert resolve(index, "last@-2").name == f"{run.run}@2"
        with pytest.raises(NotFound, match="no such turn") as caught:
            resolve(index, "last@-5")
        assert caught.value.hint == "4 of its turns 0 to 4 can be restored"
        assert state.workspace_path == str(workspace)


def test_what_the_owner_last_knew_follows_restores(run, index, store, home, workspace):
    place = Workspace.open(workspace, home)
    writer = store.writer()
    restore_state(index, writer, place, resolve(index, "last@1"))
    restore_state(index, writer, place, resolve(index, "last@2"))  # no conflict: we did that
    (workspace / "app.py").write_text("somebody else")
    with pytest.raises(WouldLoseChanges) as caught:
        restore_state(index, writer, place, resolve(index, "last@1"))
    assert caught.value.paths == [b"app.py"]
    restore_state(index, writer, place, resolve(index, "last@1"), force=True)
    undo_restore(index, writer, place)
    assert (workspace / "app.py").read_text() == "somebody else"


def test_a_live_run_of_this_process_may_restore_and_one_of_another_keeps_us_out(
    builder, home, workspace
):
    run = builder.small_run(home, workspace)
    with RunIndex.open(home) as index:
        index.refresh()
        state = resolve(index, "last@1")
        restore_state(index, run.writer, run.workspace, state)
        program = (
            "import sys; from pathlib import Path; from crabrt.journal import *;"
            "from crabrt.store import Store; from crabrt.workspace import Workspace;"
            "from crabrt.operations.restoring import restore_state;"
            "from crabrt.operations.targets import resolve;"
            "home, place = map(Path, sys.argv[1:]); index = RunIndex.open(home); index.refresh();"
            "restore_state(index, Store.open(home).writer(), Workspace.open(place, home),"
            " resolve(index, 'last@2'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, home, workspace],
            capture_output=True,
            text=True,
            check=False,
        )
        assert RunBusy.__name__ in done.stderr
    run.close()


def test_a_restore_that_was_killed_is_finished_by_the_next_one(run, index, store, home, workspace):
    program = (
        "import os, sys; from pathlib import Path; from crabrt.journal import *;"
        "from crabrt.core import failpoints; from crabrt.store import Store;"
        "from crabrt.workspace import Workspace;"
        "from crabrt.operations.restoring import restore_state;"
        "from crabrt.operations.targets import resolve;"
        "home, place = map(Path, sys.argv[1:]); index = RunIndex.open(home); index.refresh();"
        "failpoints.ALL['restore.begun'].action = lambda: os.kill(os.getpid(), 9);"
        "restore_state(index, Store.open(home).writer(), Workspace.open(place, home),"
        " resolve(index, 'last@1'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, home, workspace], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    place = Workspace.open(workspace, home)
    restored = undo_restore(index, store.writer(), place)
    assert restored.finished is not None
    assert restored.finished.recovered
    assert (workspace / "app.py").read_text() == "one\n2\nthree\n"


def test_paths_are_refused_outside_and_through_links(run, index, store, workspace):
    state = resolve(index, "last@1")
    top = os.fsencode(workspace)
    os.symlink("/etc", workspace / "link")

    def scoped(*given, cwd=top):
        return scoped_paths(store, state, top, [os.fsencode(p) for p in given], cwd)

    assert scoped("app.py", "./kept.txt", f"{workspace}/app.py") == (
        b"app.py",
        b"kept.txt",
        b"app.py",
    )
    assert scoped(".") in {(b".",), (b"",)}
    assert scoped("app.py", cwd=b"/") == (b"app.py",)
    for outside in ("..", "../x", "a/../../x", "/etc/passwd", f"{workspace}x"):
        with pytest.raises(UsageError, match="outside"):
            scoped(outside)
    with pytest.raises(NotFound):
        scoped("absent")


def test_looking_at_the_workspace_stores_nothing(run, index, store, home, workspace):
    (workspace / "new").write_bytes(os.urandom(600_000))
    place = Workspace.open(workspace, home)
    size = sum(p.stat().st_size for p in (home / "packs").rglob("*"))
    with compare_with_workspace(store, resolve(index, "last"), place, Config(home)) as comparison:
        (change,) = comparison.changes()
        assert change.path == b"new"
        assert list(comparison.changes([b"app.py"])) == []
        for kind_of in change.after.content.ids:
            assert not store.contains(kind_of)
    assert sum(p.stat().st_size for p in (home / "packs").rglob("*")) == size


def test_a_scratch_writer_gives_back_what_it_was_given(store):
    with ScratchWriter(store) as scratch:
        ids = [scratch.put(bytes([n]) * n) for n in range(50)]
        assert [scratch.get(i) for i in ids] == [bytes([n]) * n for n in range(50)]
        assert not any(store.contains(i) for i in ids)


def test_a_fork_in_place_has_the_turns_up_to_it_and_none_behind(run, home, workspace):
    now = oracle.digest(workspace)
    with Store.open(home) as store:
        fork = fork_in_place(store, f"{run.run}@1")
        with RunIndex.open(home) as index:
            index.refresh()
            row = index.run(fork)
            assert [turn.turn for turn in index.turns(fork)] == [0, 1]
            assert (row.parent, row.family, row.workspace) == (
                run.run,
                run.run,
                os.fsencode(workspace),
            )
            mine, theirs = resolve(index, f"{fork}@1"), resolve(index, f"{run.run}@1")
            assert mine.root == theirs.root
            assert list(diff_roots(store, mine.root, theirs.root)) == []
            assert index.run(run.run).turns == 3
    assert oracle.digest(workspace) == now
