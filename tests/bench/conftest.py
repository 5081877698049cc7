import os
from pathlib import Path

import pytest

from crabrt.traces import Header, ModelCall, ToolCall, Trace, Turn, write_file
from crabrt.traces.schema import SCHEMA, VERSION, ChangedPath, Files
from crabrt.traces.writing import trace_lines

SETUP = "setup = '''\necho one > a.py\nmkdir docs && echo text > docs/b.md\n'''\n"


def shell_turn(number, command, wait_ms=20.0, changed=0):
    files = Files(changed=changed, paths=tuple(ChangedPath(f"f{i}") for i in range(changed)))
    call = ToolCall("shell", {"command": command})
    return Turn(number, models=(ModelCall(wait_ms=wait_ms),), tools=(call,), files=files)


@pytest.fixture
def record():
    """Write a recorded run, and the script that makes its workspace, into a directory."""

    def make(directory: Path, name: str, *commands: str, setup: str = SETUP, wait_ms=20.0) -> Path:
        directory.mkdir(exist_ok=True)
        turns = tuple(
            shell_turn(number, command, wait_ms, changed=number % 2)
            for number, command in enumerate(commands, 1)
        )
        header = Header(SCHEMA, VERSION, name, len(turns))
        write_file(directory / f"{name}.jsonl", trace_lines(Trace(header, turns)))
        (directory / f"{name}.toml").write_text(setup)
        return directory

    return make


@pytest.fixture
def environ(tmp_path):
    """What workers and commands see."""
    return {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def scratch(tmp_path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path
