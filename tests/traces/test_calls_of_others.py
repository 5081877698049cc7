"""Recorded calls of other people's agents, a line a call: the format that is read for measuring."""

import json

import pytest

from crabrt.errors import Ambiguous, NotFound, UsageError
from crabrt.traces import DamagedTrace, read_trace, trace_lines, write_file


def line(traj, turn, call=0, tool="bash", **given):
    args = {"command": f"echo {turn}.{call} >> log"} if tool else None
    return {"traj": traj, "src": "a/b", "turn": turn, "call": call, "n": 1, "tool": tool,
            "cls": "MUT", "args": args, **given}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "calls.jsonl"
    lines = [
        line("one", 0, llm_s=2.5, tok={"inp": 10, "out": 3.0}, exit=0, err=False, tool_s=0.25),
        line("one", 0, 1, args={"command": "touch /testbed/b"}, obs_len=3),
        line("one", 1, llm_s=1.0, rejected=True),
        line("one", 2, tool=None, llm_s=0.5),
        line("two", 0, period_s=9, replay={"dur_s": 1.5, "rc": 0}),
        line("two", 1, period_s=3),
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def test_one_trajectory_becomes_turns_with_waits_and_calls(path):
    trace = read_trace(path, trajectory="one")
    assert trace.header.workspace == "/testbed"
    assert [len(turn.tools) for turn in trace.turns] == [2, 1, 0]
    assert [turn.models[0].wait_ms for turn in trace.turns] == [2500.0, 1000.0, 500.0]
    first = trace.turns[0].tools[0]
    assert (first.exit_code, first.ok, first.duration_ms) == (0, True, 250.0)
    assert trace.turns[0].models[0].tokens_out == 3
    assert not trace.turns[1].tools[0].ran


def test_where_only_periods_are_known_a_wait_is_the_period_without_the_tool(path):
    trace = read_trace(path, trajectory="two")
    assert [turn.models[0].wait_ms for turn in trace.turns] == [None, 7500.0]


def test_several_trajectories_have_to_be_told_apart(path):
    with pytest.raises(Ambiguous) as caught:
        read_trace(path)
    assert caught.value.candidates == ["one", "two"]
    assert caught.value.exit_code == 4
    with pytest.raises(NotFound, match="three"):
        read_trace(path, trajectory="three")


def test_a_line_that_does_not_fit_is_named(path):
    path.write_text(path.read_text() + '{"traj": "one", "turn": "x", "call": 0, "tool": null}\n')
    with pytest.raises(DamagedTrace) as caught:
        read_trace(path, trajectory="one")
    assert caught.value.where.endswith("line 7")


def test_they_are_replayed_in_the_workspace_at_hand(path, replay, workspace):
    report = replay(read_trace(path, trajectory="one"))
    assert (workspace / "log").read_text() == "0.0\n"
    assert (workspace / "b").exists()
    assert report.exit_agreement == (1, 1)
    assert report.skipped == ()


def test_a_trace_of_ours_has_no_trajectories(tmp_path, make):
    path = tmp_path / "t.jsonl"
    write_file(path, trace_lines(make.trace("true")))
    with pytest.raises(UsageError, match="one run"):
        read_trace(path, trajectory="one")
