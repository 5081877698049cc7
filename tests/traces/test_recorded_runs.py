"""The traces that the project ships: whole, small enough, honest, and they run again."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from crabrt.traces import read_trace
from crabrt.traces.actions import Nothing, Unknown, action_of, tool_kinds

TRACES = Path(__file__).parents[2] / "traces"
NAMES = ("build", "data", "history", "install", "repair", "service")


def test_all_of_them_are_known_here():
    assert {path.stem for path in TRACES.glob("*.jsonl")} == set(NAMES)
    assert {path.stem for path in TRACES.glob("*.toml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_is_its_scenario(name):
    path = TRACES / f"{name}.jsonl"
    assert path.stat().st_size < 500_000
    trace = read_trace(path)
    scenario = tomllib.loads((TRACES / f"{name}.toml").read_text())
    assert (trace.header.timing, trace.header.status) == ("synthetic", "done")
    assert trace.header.made_by == f"traces/record.py traces/{name}.toml"
    turns = [turn for turn in trace.turns if turn.tools]
    assert len(turns) == len(scenario["turn"])
    for turn, script in zip(turns, scenario["turn"], strict=True):
        assert [{"tool": call.name, **call.arguments} for call in turn.tools] == script["call"]
        assert 1_500 <= turn.models[0].wait_ms < 30_000
        assert turn.verdict
        assert not turn.unprotected


@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_a_recorded_run_is_understood(name):
    kinds = tool_kinds({})
    calls = [call for turn in read_trace(TRACES / f"{name}.jsonl").turns for call in turn.tools]
    assert not [call for call in calls if isinstance(action_of(call, kinds), Nothing | Unknown)]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "sqlite3"))), reason="the recorded commands use them"
)
def test_the_service_is_written_and_run_again(workspace, replay):
    (workspace / "kept.txt").unlink()
    setup = tomllib.loads((TRACES / "service.toml").read_text())["setup"]
    environ = {"PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-euc", setup], cwd=workspace, env=environ, check=True)
    report = replay(read_trace(TRACES / "service.jsonl"))
    assert report.exit_agreement == (32, 32)
    assert report.false_none == ()
    assert report.false_changed == ()
    assert len(report.judged("right")) >= 25
