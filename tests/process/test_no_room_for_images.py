"""Where images go there is no room, or they vanish: files are protected, and the loop goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import crabrt
from crabrt.core import failpoints
from crabrt.core.ids import object_id
from crabrt.journal import RunIndex

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

TURNS = 5


@pytest.fixture
def hoard(criu):
    """Runs the hoarding agent on a disk; what became of it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        agent = Agent(Path(top), criu.program, Path(__file__).with_name("hoarding.py"))
        agent._env["TMPDIR"] = top
        agent.home.mkdir()
        with contextlib.ExitStack() as undo:

            def run(*sizes_mib: int, home_mib: int = 0) -> Agent:
                if home_mib:
                    kind = ("-t", "tmpfs", "-o", f"mode=700,size={home_mib}m", "tmpfs")
                    subprocess.run(["mount", *kind, agent.home], check=True)
                    undo.callback(subprocess.run, ["umount", "--lazy", agent.home], check=True)
                pid = int(succeeded(agent.run(*sizes_mib)))
                undo.callback(os.kill, pid, signal.SIGKILL)
                return agent

            yield run


def test_memory_that_is_too_small_for_an_image_is_not_used_again(hoard):
    """A deleted file is part of an image, and no part of a process's memory."""
    agent = hoard(1, 60, 48)
    first, *others = agent.turns()
    assert "no space" in " ".join(first.unprotected).lower()
    assert len(others) == TURNS - 1
    assert others[-1].unprotected == ()
    assert all(turn.restorable for turn in agent.turns())
    assert not agent.spools


def test_a_store_that_is_too_small_for_an_image_names_nothing_half(hoard, criu):
    agent = hoard(20, 0, home_mib=8)
    turns = agent.turns()
    assert "No space left" in " ".join(turns[0].unprotected)
    assert turns[-1].restorable  # without an image there is room
    # If it was captured before that was known of the one before it, that is why.
    whys = ("could not be stored", "before it, on which it rests, is not durable")
    assert any(why in turns[-1].unprotected[0] for why in whys)
    assert agent.crab("restore", f"{agent.last}@5", "--files-only").returncode == 0
    succeeded(agent.crab("check", "--read-data"))
    assert not agent.spools


def test_an_image_that_vanished_before_it_was_stored_is_named(tmp_path, criu, monkeypatch):
    """The turn's files are durable, and who slept since is imaged anew."""
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    home, ws = tmp_path / "home", tmp_path / "ws"
    monkeypatch.setenv("CRAB_HOME", str(home))
    monkeypatch.setenv("CRAB_CRIU", str(criu.program))
    monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    mine = Path(f"/dev/shm/crabrt-{os.geteuid()}") / object_id(os.fsencode(home)).hex()[:16]
    pids, removed = [], []

    @crabrt.tool
    def leave() -> None:
        child = subprocess.Popen(["sleep", "1000"], **quiet, start_new_session=True)
        child.returncode = 0  # nobody waits for it
        pids.append(child.pid)

    @crabrt.tool
    def write() -> None:
        (ws / "file").write_text("new")

    @crabrt.model
    def think(turn: int) -> int:
        return turn

    @crabrt.agent(workspace=ws, name="vanishing")
    def loop() -> str:
        think(0)
        leave()
        for turn in range(1, 4):
            think(turn)
            write()
        return crabrt.current_run().id

    def vanish() -> None:
        for image in mine.glob(f"*/*/{pids[0]}") if pids and not removed else ():
            removed.append(image)
            shutil.rmtree(image)

    ws.mkdir()
    monkeypatch.setattr(failpoints.ALL["checkpoint.captured"], "action", vanish)
    try:
        run = loop()
        assert len(removed) == 1
        with RunIndex.open(home) as index:
            index.refresh()
            turns = [turn for turn in index.turns(run) if turn.turn]
        assert "removed its image" in turns[0].unprotected[0]
        assert all(turn.restorable for turn in turns)
        assert turns[-1].unprotected == ()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
