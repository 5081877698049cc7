"""A run goes on in place, and not all of what its tools had left is there any more."""

from __future__ import annotations

import signal

import pytest

from .counted_runs import Agent

TITLED = """
import os, signal, subprocess, sys, time
from pathlib import Path
import crabrt

workspace = Path(sys.argv[1])

@crabrt.tool
def start():
    command = ["bash", "-c", "exec -a 'server *:6379' sleep 1000"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    child = subprocess.Popen(command, start_new_session=True, **quiet)
    child.returncode = 0  # nobody waits for it
    while b"server" not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
        time.sleep(0.005)
    (workspace / "address").write_text(f"{child.pid} 0")

@crabrt.model
def think(turn):
    if turn == 2 and not Path(sys.argv[2]).exists():
        time.sleep(0.5)  # what came before is durable by then
        Path(sys.argv[2]).touch()
        pid = (workspace / "address").read_text().split()[0]
        subprocess.Popen(["sh", "-c", f"for pid in {os.getpid()} {pid}; do kill -9 $pid; done"])
        time.sleep(60)
    return turn

@crabrt.tool
def write(turn):
    (workspace / "turn").write_text(str(turn))

@crabrt.agent(workspace=workspace, name="titled")
def loop():
    for turn in range(4):
        think(turn)
        start() if turn == 0 else write(turn)

loop()
"""


@pytest.mark.parametrize("respawn", ["never", "always"])
def test_in_place_it_is_told_who_has_ended_and_cannot_be_started_again(tmp_path, respawn):
    program = tmp_path / "titled.py"
    program.write_text(TITLED)
    agent = Agent(tmp_path, tmp_path / "nothing", program)
    agent._env |= {"CRAB_PROCESSES": "track", "CRAB_RESPAWN": respawn}
    assert agent.run(tmp_path / "died").returncode == -signal.SIGKILL
    done = agent.crab("resume", "last", "--yes")
    assert done.returncode == 0, done.stderr
    assert "server *:6379 1000" in done.stderr
    assert "is not back: it has no image" in done.stderr
    assert "CRAB_RESPAWN" not in done.stderr  # which would not help
