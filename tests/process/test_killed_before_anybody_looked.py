"""A tool has started a server, its result is sealed, and the loop dies before the checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.core.entries import Captured, Result, Resumed
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.process import table
from crabrt.testing.crash import kill_at

AGENT = """
import os, subprocess, sys
from pathlib import Path
import crabrt

workspace = Path(sys.argv[1])

@crabrt.tool
def start() -> None:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    server = subprocess.Popen(["sleep", "1000"], start_new_session=True, **quiet)
    server.returncode = 0  # nobody waits for it
    (workspace / "server").write_text(str(server.pid))

@crabrt.tool
def look() -> bool:
    path = Path("/proc", (workspace / "server").read_text(), "cmdline")
    return path.exists() and path.read_bytes() == b"sleep\\0001000\\0"

@crabrt.model
def think(turn: int) -> int:
    return turn

@crabrt.agent(workspace=workspace, name="early")
def loop() -> bool:
    think(0)
    start()
    think(1)
    return look()

print(loop())
"""


class Agent:
    def __init__(self, top: Path, monkeypatch) -> None:
        self.top, self.workspace, self.home = top, top / "ws", top / "home"
        self.workspace.mkdir()
        (top / "agent.py").write_text(AGENT)
        for name in [name for name in os.environ if name.startswith("CRAB_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("CRAB_HOME", str(self.home))
        monkeypatch.setenv("CRAB_CRIU", str(top / "nothing"))
        monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(top / "config"))

    def die(self) -> None:
        """In the checkpoint of turn 1: the one of turn 0 is the first."""
        script, mark = self.top / "agent.py", self.top / "mark"
        assert kill_at("checkpoint.scanned", 2, script, [self.workspace], mark=mark).killed

    def resume(self) -> str:
        done = subprocess.run(
            [sys.executable, str(self.top / "agent.py"), str(self.workspace)],
            env={**os.environ, "CRAB_RESUME": "last"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def bodies(self, kind):
        with RunIndex.open(self.home) as index:
            index.refresh()
            run = index.find("last").run
        bodies = [record.body for record in read_journal(run_dir(self.home, run))]
        return [body for body in bodies if isinstance(body, kind)]

    @property
    def server(self) -> int:
        return int((self.workspace / "server").read_text())


@pytest.fixture
def agent(tmp_path, monkeypatch):
    made = Agent(tmp_path, monkeypatch)
    made.die()
    servers = {made.server}
    assert [body.turn for body in made.bodies(Captured)] == [0], "nobody has seen the server"
    assert [body.left for body in made.bodies(Result)] == [1], "but that there is one is known"
    yield made
    for pid in {*servers, made.server}:
        if table.look(pid) is not None and table.command(pid) == (b"sleep", b"1000"):
            os.kill(pid, signal.SIGKILL)


def test_a_server_that_died_too_is_started_again_by_its_tool(agent, until):
    first = agent.server
    os.kill(first, signal.SIGKILL)
    until(lambda: (found := table.look(first)) is None or found.ended)
    assert agent.resume() == "True"
    assert [body.mode for body in agent.bodies(Resumed)] == ["restored"]
    assert agent.server != first


def test_a_server_that_lives_goes_on_with_the_run(agent):
    first = agent.server
    assert agent.resume() == "True"
    assert [body.mode for body in agent.bodies(Resumed)] == ["in-place"]
    assert agent.server == first
