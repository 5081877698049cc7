"""`overhead` and `density`: loops that wait for a model, with crabrt and without."""

import subprocess
from pathlib import Path

import pytest

from crabrt.bench import DensityOptions, OverheadOptions, measure_density, measure_overhead
from crabrt.bench.crowd import steps_of
from crabrt.bench.exposure import replayed
from crabrt.errors import NotFound
from crabrt.traces import read_trace

COMMANDS = ("echo two > a.py", "cat a.py", "rm docs/b.md", "ls")


def quiet(what):
    assert what


@pytest.fixture
def traces(tmp_path, record):
    return record(tmp_path / "traces", "small", *COMMANDS, wait_ms=40.0)


def test_overhead_runs_every_regime_in_every_round(scratch, environ, traces):
    said = []
    options = OverheadOptions(scratch, traces=(traces,), speed=4, repetitions=2)
    report = measure_overhead(options, environ, said.append)
    assert [what.partition(": ")[2] for what in said] == [
        "plain", "crabrt", "full copy", "crabrt", "full copy", "plain"
    ]  # fmt: skip
    found = {(row.scenario, row.what, row.who): row.series for row in report.rows}
    assert found["small", "turns", "plain"].median == 4
    assert found["small", "model waits", "plain"].median >= 40
    for regime in ("plain", "crabrt", "full copy"):
        assert len(found["small", "wall", regime].values) == 2
        assert found["small", "wall", regime].low > 40, "the waits are in it"
        assert found["small", "memory", regime].low > 1
    for what in ("CPU", "memory"):
        ours, plain = found["small", what, "crabrt"], found["small", what, "plain"]
        added = [a - b for a, b in zip(ours.values, plain.values, strict=True)]
        assert list(found["small", f"{what} added", "crabrt"].values) == pytest.approx(added)
    assert found["small", "unprotected", "crabrt"].median == 0
    assert ("small", "turn 0: capture", "crabrt, cold") in found
    assert ("small", "turn 0: capture", "crabrt, warm") in found
    assert ("all runs", "wall ratio to plain", "full copy") in found
    assert "wall ratio" not in {bar.what for bar in report.bars}, "that bar is about 1x"
    assert {"exposed p50", "exposed p99"} == {bar.what for bar in report.bars}


def test_without_full_copies_there_are_two_regimes(scratch, environ, traces):
    said = []
    options = OverheadOptions(scratch, traces=(traces,), speed=40, turns=2, full_copy=False)
    report = measure_overhead(options, environ, said.append)
    assert {what.partition(": ")[2] for what in said} == {"plain", "crabrt"}
    assert {row.who for row in report.rows} == {"plain", "crabrt", "crabrt, cold", "crabrt, warm"}


def test_with_the_waits_as_recorded_the_ratio_has_a_bar(scratch, environ, traces):
    options = OverheadOptions(scratch, traces=(traces,), turns=2)
    report = measure_overhead(options, environ, quiet)
    (bar,) = (bar for bar in report.bars if bar.what == "wall ratio")
    assert len(bar.ratio.values) == 1
    assert bar.ratio.median > 0.5


def test_a_full_copy_is_really_made(tmp_path, traces):
    workspace, archive = tmp_path / "workspace", tmp_path / "copy.tar"
    workspace.mkdir()
    (workspace / "docs").mkdir()
    (workspace / "docs" / "b.md").write_text("text\n")
    arguments = {
        "regime": "full copy", "file": str(traces / "small.jsonl"), "trajectory": None,
        "turns": 1, "workspace": str(workspace), "environ": {"PATH": "/usr/bin:/bin"},
        "home": str(tmp_path / "store"), "archive": str(archive), "speed": 1000.0,
        "observer": "scan",
    }  # fmt: skip
    found = replayed(arguments, None)
    assert found["exposed_ms"] == [0.0]
    assert not (tmp_path / "store").exists()
    names = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True)
    assert {"./a.py", "./docs/b.md"} <= set(names.stdout.split())


def test_agents_share_one_store_and_every_turn_counts(scratch, environ, traces):
    said = []
    options = DensityOptions(
        scratch, traces=(traces,), agents=(1, 3), turns=3, speed=4, large_entries=400,
        repetitions=2,
    )  # fmt: skip
    report = measure_density(options, environ, said.append)
    assert said[:4] == ["1 agents, round 1: plain", "1 agents, round 1: crabrt",
                        "1 agents, round 2: crabrt", "1 agents, round 2: plain"]  # fmt: skip
    found = {(row.scenario, row.what, row.who): row.series for row in report.rows}
    for agents, scenario in ((1, "1 agent"), (3, "3 agents")):
        wall = found[scenario, "until the last ends", "crabrt"]
        rate = found[scenario, "turns a second", "crabrt"]
        turns = [ms / 1e3 * a_second for ms, a_second in zip(wall.values, rate.values, strict=True)]
        assert turns == pytest.approx([3 * agents] * 2)
        assert found[scenario, "unprotected", "crabrt"].median == 0
        assert (scenario, "exposed max", "crabrt") in found
        assert found[scenario, "wall ratio to plain", "crabrt"].low > 0.5
    large = sum(1 for _ in (scratch / "tree-1").rglob("*"))
    assert 350 < large < 450
    assert not (scratch / "shared-store").exists()
    assert report.bars == [], "the bar is about 96 agents"


def test_the_scripts_of_agents_are_those_of_recorded_runs(traces):
    assert steps_of(read_trace(traces / "small.jsonl")) == [(40, 1), (40, 0), (40, 1), (40, 0)]


def test_without_recorded_runs_there_is_nothing_to_wait_for(tmp_path, scratch, environ):
    (tmp_path / "empty").mkdir()
    options = DensityOptions(scratch, traces=(Path(tmp_path / "empty"),), agents=(1,))
    with pytest.raises(NotFound, match="no recorded runs"):
        measure_density(options, environ, quiet)
