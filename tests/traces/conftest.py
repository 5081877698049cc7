import os
from pathlib import Path

import pytest

from crabrt.traces import Header, ModelCall, ReplayOptions, ToolCall, Trace, Turn
from crabrt.traces import replay as replay_trace
from crabrt.traces.schema import SCHEMA, VERSION


class Make:
    """Small traces."""

    @staticmethod
    def shell(command, **given):
        return ToolCall("shell", {"command": command}, **given)

    @staticmethod
    def turn(number, *tools, wait_ms=0.0, **given):
        return Turn(number, models=(ModelCall(wait_ms=wait_ms),), tools=tools, **given)

    @classmethod
    def trace(cls, *turns, workspace="", **given):
        """Of turns; a text is a turn that runs it, a call one that makes it."""
        made = []
        for number, item in enumerate(turns, 1):
            turn = cls.shell(item) if isinstance(item, str) else item
            made.append(cls.turn(number, turn) if isinstance(turn, ToolCall) else turn)
        header = Header(SCHEMA, VERSION, "made", len(made), workspace=workspace, **given)
        return Trace(header, tuple(made))


@pytest.fixture
def make():
    return Make


@pytest.fixture
def workspace(tmp_path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    (path / "kept.txt").write_text("kept\n")
    return path


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def replay(workspace, home, tmp_path, monkeypatch):
    """Replay a trace in the workspace, with the oracle and without waits unless told otherwise."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(trace, where=None, **given):
        options = {"oracle": True, "home": home, "sleep": lambda _: None, **given}
        options.setdefault("environ", {"PATH": os.environ["PATH"]})
        return replay_trace(trace, where or workspace, ReplayOptions(**options))

    return run
