"""Nobody comes back to files that are not as they were when the image was taken."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from crabrt.core.processes import FileHeld, LastingProcess, ProcessTree
from crabrt.process.holdings import files_to_match
from crabrt.process.matching import Grounds, Matched
from crabrt.store import Store
from crabrt.workspace import Tracker, Workspace

from .counted_runs import succeeded

OPENS = """
    import mmap, signal, sys
    top = sys.argv[1]
    held = [open(top + "/ws/read"), open(top + "/ws/written", "w"), open(top + "/outside", "r+")]
    held += [open(top + "/only-read"), open(top + "/gone", "w+"), open(top + "/log", "a")]
    os.unlink(top + "/gone")
    shared = open(top + "/mapped", "r+b")
    mapping = mmap.mmap(shared.fileno(), 4)
    shared.close()
    ready()
    signal.pause()
"""


@pytest.fixture
def keeping(agent, tmp_path):
    """Runs the counting agent, whose server keeps its count in a file as well."""

    def run(kept: Path, *, ignored: str = "") -> None:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(f"{0:08}")
        if ignored:
            (agent.ws / ".crabignore").write_text(ignored + "\n")
        agent._env["KEPT"] = str(kept)
        succeeded(agent.run(4))
        assert kept.read_text() == f"{4:08}"

    return run


def refused(agent, kept: Path) -> None:
    """A restore of turn 2, where the server had counted to 1 and now would meet a 4."""
    done = agent.crab("restore", "last@2")
    assert done.returncode == 3
    assert f"{kept} was modified since" in done.stdout.partition("not back")[2].replace("\n", " ")
    assert not agent.server_lives
    assert kept.read_text() == f"{4:08}"
    succeeded(agent.crab("undo", str(agent.ws)))  # nobody has written since
    assert agent.add(0) == 4


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_no_server_comes_back_to_a_database_that_is_excluded_and_went_on(agent, keeping):
    kept = agent.ws / "db" / "kept"
    keeping(kept, ignored="db/")
    refused(agent, kept)


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_no_server_comes_back_to_a_file_outside_of_the_workspace_that_went_on(
    agent, keeping, tmp_path
):
    keeping(tmp_path / "kept")
    refused(agent, tmp_path / "kept")


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_no_server_comes_back_to_a_file_on_a_mount_that_went_on(agent, keeping):
    mounted = agent.ws / "db"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=True)
    try:
        keeping(mounted / "kept")
        refused(agent, mounted / "kept")
    finally:
        agent.close()
        subprocess.run(["umount", "--lazy", mounted], check=True)


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_a_server_comes_back_to_files_that_come_back_with_it(agent, keeping):
    kept = agent.ws / "db" / "kept"
    keeping(kept)
    succeeded(agent.crab("restore", "last@2"))
    assert (agent.add(0), kept.read_text()) == (1, f"{1:08}")  # it wrote when it was asked
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 4


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_a_server_comes_back_to_an_excluded_file_that_is_as_it_was(agent, keeping):
    kept = agent.ws / "db" / "kept"
    keeping(kept, ignored="db/")
    was = kept.stat()
    assert agent.add(3) == 7
    os.kill(agent.server, signal.SIGKILL)
    assert agent.crab("restore", "last@4").returncode == 3  # it wrote behind that turn
    kept.write_text(f"{4:08}")
    os.utime(kept, ns=(was.st_atime_ns, was.st_mtime_ns))
    succeeded(agent.crab("restore", "last@4"))
    assert agent.add(0) == 4


@pytest.mark.root
@pytest.mark.usefixtures("criu")
def test_a_log_in_an_excluded_directory_that_grew_is_no_obstacle_and_told(agent):
    log = agent.ws / "logs" / "log"
    log.parent.mkdir()
    (agent.ws / ".crabignore").write_text("logs/\n")
    agent._env["LOG"] = str(log)
    succeeded(agent.run(4))
    told = succeeded(agent.crab("restore", "last@2"))
    assert f"{log}, which it writes, has 4 bytes now and had 2" in told
    assert agent.add(7) == 8
    assert log.read_text() == "1\n4\n8\n"


@pytest.mark.root
def test_what_it_may_write_is_recorded_and_what_it_holds_in_the_workspace(trees, tmp_path):
    (tmp_path / "ws").mkdir()
    for name in ("ws/read", "ws/written", "outside", "only-read", "gone", "log", "mapped"):
        (tmp_path / name).write_text("four")
    child = trees.start(OPENS, tmp_path)
    found = files_to_match([child.pid], os.fsencode(tmp_path / "ws"))
    here = [one for one in found if one.path.startswith(os.fsencode(tmp_path))]
    names = {os.path.relpath(os.fsdecode(one.path), tmp_path): one.is_written_only for one in here}
    assert names.pop("stderr") is True  # of the test's own
    assert names == {
        "ws/read": False, "ws/written": True, "outside": False, "log": True, "mapped": False,
    }  # fmt: skip
    assert all(not one.path.endswith((b".so", b".py")) for one in found)
    status = (tmp_path / "outside").stat()
    (outside,) = [one for one in here if one.path.endswith(b"/outside")]
    assert (outside.size, outside.modified_ns) == (4, status.st_mtime_ns)


@pytest.fixture
def grounds(tmp_path):
    """Files of a checkpoint, and a function that looks at one of them for a tree that held it."""
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "file").write_text("as it was")
    with Store.open(tmp_path / "home", create=True) as store, store.writer() as writer:
        workspace = Workspace.open(tmp_path / "ws", tmp_path / "home")
        tracker = Tracker(workspace, huge_files=100, huge_bytes=1 << 20)
        root = tracker.capture(tracker.scan(), writer).root

        def look(*held: FileHeld) -> Matched:
            tree = ProcessTree((LastingProcess(1, 0, 0),), imaged=True, held=held)
            return Grounds(writer, root, workspace, workspace.path).match(tree)

        yield look


def held(path: Path, **given: object) -> FileHeld:
    status = path.stat()
    return FileHeld(os.fsencode(path), status.st_size, status.st_mtime_ns, **given)


def test_what_the_checkpoint_has_is_compared_with_that(grounds, tmp_path):
    """A restore may have left a file as it is: then its log is not what it was, either."""
    file = tmp_path / "ws" / "file"
    assert grounds(held(file)) == Matched()
    file.write_text("otherwise")
    assert "was modified since" in grounds(held(file)).why_not
    assert "was modified since" in grounds(held(file, is_written_only=True)).why_not
    file.unlink()
    assert "is gone" in grounds(FileHeld(os.fsencode(file), 9, 0)).why_not


def test_what_it_has_not_is_compared_with_what_was_recorded(grounds, tmp_path):
    other = tmp_path / "ws" / "other"
    other.write_text("new")
    assert grounds(held(other)) == Matched()
    was = FileHeld(os.fsencode(other), 2, 0)
    assert "has 3 bytes now and had 2" in grounds(was).why_not
    log = grounds(FileHeld(os.fsencode(other), 2, 0, is_written_only=True))
    assert (log.why_not, len(log.notes)) == ("", 1)
    other.unlink()
    other.mkdir()
    assert "no file any more" in grounds(was).why_not


def test_a_state_of_before_names_no_files(grounds):
    assert grounds() == Matched()
