"""A loop is killed with its shell while that is at a command: the shell comes back, at none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from crabrt.process import subreaper, table

pytestmark = pytest.mark.root

AGENT = """
import os, sys
from pathlib import Path
import crabrt

workspace = Path(sys.argv[1])
shell = crabrt.Shell(cwd=workspace)
slow = "" if "CRAB_RESUME" in os.environ else "touch ../inside; sleep 1000; "

@crabrt.tool
def bash(command: str) -> str:
    prefix = slow if command == "add 100" else ""
    return shell.run(prefix + command, timeout=30).output.strip()

@crabrt.model
def think(turn: int) -> str:
    return ["count=1; add() { echo $((count += $1)) $(jobs -p | wc -l); }", "add 10",
            "sleep 1000 &", "add 100", "add 1000"][turn]  # no rebuilt shell has a job

@crabrt.agent(workspace=workspace, name="inside")
def loop() -> list[str]:
    return [bash(think(turn)) for turn in range(5)]

print(loop())
"""


def test_a_shell_that_was_killed_inside_a_command_takes_the_next_ones(
    tmp_path, monkeypatch, criu, until
):
    workspace, script = tmp_path / "ws", tmp_path / "agent.py"
    workspace.mkdir()
    script.write_text(AGENT)
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    settings = {"CRAB_HOME": str(tmp_path / "home"), "CRAB_CRIU": str(criu.program)}
    settings |= {"CRAB_NETWORK_OBSERVER": "off", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [sys.executable, str(script), str(workspace)]
    assert subreaper.hold()
    before = {one.identity for one in table.descendants(os.getpid())}

    def end_all() -> bool:
        left = [one for one in table.descendants(os.getpid()) if one.identity not in before]
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        subreaper.collect(left)
        return not left

    try:
        loop = subprocess.Popen(command, env={**os.environ, **settings})
        until(lambda: (tmp_path / "inside").exists(), limit_s=60)
        loop.kill()
        assert loop.wait() == -signal.SIGKILL
        until(end_all)
        done = subprocess.run(
            command,
            env={**os.environ, **settings, "CRAB_RESUME": "last"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "['', '11 0', '', '111 1', '1111 1']\n"
    finally:
        until(end_all)
        subreaper.release()
