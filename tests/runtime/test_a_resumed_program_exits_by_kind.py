"""What stops a resume is the exit code of the program that was started to resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
import crabrt

@crabrt.model
def think(messages: list[dict]) -> str:
    return "ok"

@crabrt.tool(effect="external")
def charge() -> None:
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)

@crabrt.tool
def act() -> None:
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)

@crabrt.agent(workspace=sys.argv[1], name="program")
def run() -> None:
    think([{"role": "user", "content": sys.argv[2]}])
    charge() if "charge" in sys.argv else act()

run()
"""


@pytest.mark.parametrize(
    ("first", "again", "code", "kind"),
    [
        (["same", "charge", "die"], ["same", "charge"], 9, "InDoubt"),
        (["this", "act", "die"], ["that", "act"], 8, "Diverged"),
        (["same", "act", "die"], ["same", "act"], 0, ""),
    ],
)
def test_the_exit_code_says_what_stopped_the_resume(
    first: list[str], again: list[str], code: int, kind: str, ws: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def start(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(program), str(ws), *words],
            env=os.environ | more,
            capture_output=True,
            text=True,
            check=False,
        )

    assert start(*first).returncode == -9
    ended = start(*again, CRAB_RESUME="last")
    assert ended.returncode == code, ended.stderr
    assert kind in ended.stderr
