"""Where images cannot be taken or kept the files still are, the loop goes on, and it is named."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import crabrt
from crabrt.core.ids import ObjectId, object_id
from crabrt.journal import RunIndex
from crabrt.process import table
from crabrt.process.criu import Criu, get_images
from crabrt.process.imaging import Imager
from crabrt.process.parking import Parked
from crabrt.process.sighting import Sighting, sight
from crabrt.process.state import image_of, read_state
from crabrt.store import Store

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

COUNTED = "[1, 4, 9]\n"
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def fake(path: Path, criu: Criu, on_dump: str) -> Path:
    """A CRIU that is the real one, but for dumps of the run's server."""
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = dump ] && grep -q address "/proc/$3/cmdline"; then {on_dump}; fi\n'
        f'exec {criu.program} "$@"\n'
    )
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    "on_dump", ["exit 1", "kill -9 $$", "echo nonsense; exit 77"], ids=["fails", "dies", "raves"]
)
def test_a_criu_that_fails_is_named_and_files_come_back(agent, criu, tmp_path, on_dump):
    agent._env["CRAB_CRIU"] = str(fake(tmp_path / "fake", criu, on_dump))
    assert succeeded(agent.run(6)) == COUNTED
    turns = agent.turns()
    assert all("has no image" in turn.unprotected[0] for turn in turns)
    assert agent.server_lives
    assert agent.crab("restore", "last@3").returncode == 3
    assert (agent.ws / "log").read_text() == "[1]\n"
    assert not agent.spools


def test_files_are_copied_where_there_is_no_place_to_begin_an_image(
    criu, trees, tmp_path, monkeypatch, until
):
    child = trees.start("import signal; ready(); signal.pause()")
    alive, copied = sight([table.look(child.pid)], Sighting()), []
    with Store.open(tmp_path / "store", create=True) as store:
        imager = Imager(criu, store)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        taken = imager.take(alive, tmp_path / "spool", lambda: copied.append(True))
        (tree,) = taken.trees
        assert copied == [True]
        assert not tree.imaged
        assert "cannot be begun: No such file or directory" in tree.why_not
        until(lambda: table.look(child.pid).state == "S")


def test_who_is_to_end_is_told_where_there_is_no_place_to_begin_an_image(
    criu, trees, tmp_path, monkeypatch, until
):
    child = trees.start("import signal; ready(); signal.pause()")
    alive = sight([table.look(child.pid)], Sighting())
    with Store.open(tmp_path / "store", create=True) as store, store.writer() as writer:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with Parked(alive, writer, criu, tmp_path) as parked:
            (missing,) = parked.lost
            assert "cannot be begun: No such file or directory" in missing.why
            until(lambda: table.look(child.pid).state == "T")
        until(lambda: table.look(child.pid).state == "S")


def test_what_copying_the_files_raises_goes_up(criu, trees, tmp_path, until):
    child = trees.start("import signal; ready(); signal.pause()")
    alive = sight([table.look(child.pid)], Sighting())

    def copy() -> None:
        raise OSError(errno.EIO, "the disk")

    with Store.open(tmp_path / "store", create=True) as store, pytest.raises(OSError, match="disk"):
        Imager(criu, store).take(alive, tmp_path / "spool", copy)
    until(lambda: table.look(child.pid).state == "S")


def test_a_spool_in_memory_that_is_somebody_elses_is_not_used(agent):
    mine = (
        Path("/dev/shm") / f"crabrt-{os.geteuid()}" / object_id(os.fsencode(agent.home)).hex()[:16]
    )
    mine.mkdir(parents=True, mode=0o700)
    (mine / "theirs").touch()
    os.chown(mine, 65534, 65534)
    try:
        assert succeeded(agent.run(6)) == COUNTED
        assert [turn.unprotected for turn in agent.turns()] == [()] * 6
        assert [path.name for path in mine.iterdir()] == ["theirs"]
    finally:
        shutil.rmtree(mine)
    succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 1


def test_who_was_stopped_is_imaged_and_comes_back_stopped(agent, until):
    succeeded(agent.run(4))
    os.kill(agent.server, signal.SIGSTOP)
    until(lambda: not agent.server_lives)
    server = agent.server
    succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 1
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.server == server
    until(lambda: table.look(server).state == "T")
    os.kill(server, signal.SIGCONT)
    assert agent.add(0) == 4


def test_a_number_that_somebody_else_has_is_named(agent, tmp_path):
    succeeded(agent.run(4))
    wanted = agent.server
    os.kill(wanted, signal.SIGKILL)
    code = (
        "import os, sys\n"
        "while True:\n"
        f"    open('/proc/sys/kernel/ns_last_pid', 'w').write('{wanted - 1}')\n"
        "    pid = os.fork()\n"
        "    if not pid: os.execvp('sleep', ['sleep', '100'])\n"
        f"    if pid == {wanted}: break\n"
        "    os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "print(pid, flush=True)\n"
        "os.waitpid(pid, 0)\n"
    )
    with subprocess.Popen(
        ["python3", "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as taker:
        assert int(taker.stdout.readline()) == wanted
        try:
            done = agent.crab("restore", "last@2", "--force")
            assert done.returncode == 3
            assert f"the process number {wanted} is taken, by sleep 100" in done.stdout
        finally:
            os.killpg(taker.pid, signal.SIGKILL)
    succeeded(agent.crab("restore", "last@2", "--force"))  # it can be tried again
    assert agent.add(0) == 1


def test_a_port_that_somebody_else_has_is_named(agent, until):
    succeeded(agent.run(4))
    pid, port = map(int, (agent.ws / "address").read_text().split())
    os.kill(pid, signal.SIGKILL)
    until(lambda: not agent.server_lives)
    with socket.create_server(("127.0.0.1", port)):
        done = agent.crab("restore", "last@2", "--force")
        assert done.returncode == 3
        assert f"{port}" in done.stdout.partition("not back")[2]
        assert "is taken, by " in done.stdout
        assert not (agent.ws / "log").exists()  # the files are restored
        assert table.look(pid) is None  # and nothing of it lies about
    succeeded(agent.crab("restore", "last@2", "--force"))  # it can be tried again
    assert agent.add(0) == 1
    succeeded(agent.crab("restore", "last@4"))
    assert agent.add(0) == 4


def test_an_image_that_a_failed_sync_lost_is_not_relied_on(tmp_path, criu, monkeypatch):
    """The next turn says so, and what sleeps on is imaged anew."""
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CRAB_CRIU", str(criu.program))
    monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")
    real, failing, failed, pids = os.fdatasync, [], [], []

    def fdatasync(fd: int) -> None:
        if failing and ".pack" in os.readlink(f"/proc/self/fd/{fd}"):
            failed.append(failing.pop())
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    @crabrt.tool
    def leave() -> None:
        failing.append(True)
        child = subprocess.Popen(["sleep", "1000"], **QUIET, start_new_session=True)
        pids.append(child.pid)
        child.returncode = 0

    @crabrt.tool
    def nothing() -> None:
        pass

    @crabrt.model
    def think(turn: int) -> int:
        return turn

    (tmp_path / "ws").mkdir()

    @crabrt.agent(workspace=tmp_path / "ws", name="syncing")
    def loop() -> str:
        think(0)
        leave()
        think(1)
        time.sleep(0.5)  # behind the loop, the commit fails
        for turn in range(2, 5):
            nothing()
            think(turn)
        return crabrt.current_run().id

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    try:
        with pytest.warns(crabrt.UnprotectedWarning):
            run = loop()
        assert failed
        with RunIndex.open(tmp_path / "home") as index:
            index.refresh()
            root = ObjectId(index.turns(run)[-1].processes)
        with Store.open(tmp_path / "home") as store:
            (tree,) = read_state(root, store).trees
            assert tree.imaged
            get_images(image_of(root, tree, store), tmp_path / "images", store)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_log_outside_of_the_workspace_that_grew_is_no_obstacle(tmp_path, agent):
    """Nobody puts it back: who writes there goes on at its end."""
    log = tmp_path / "outside.log"
    agent._env["LOG"] = str(log)
    succeeded(agent.run(4))
    assert log.read_text() == "1\n4\n"
    succeeded(agent.crab("restore", "last@2"))  # where only the first had been written
    assert agent.add(7) == 8
    assert log.read_text() == "1\n4\n8\n"
