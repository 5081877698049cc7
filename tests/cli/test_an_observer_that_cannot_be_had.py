"""An observer is named that this user may not have: everything says so in the same words."""

import json

import pytest

pytestmark = pytest.mark.root  # to become somebody without privileges


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.jsonl"
    header = {"schema": "crabrt-trace", "version": 1, "id": "t", "turns": 1, "workspace": "/app"}
    tool = {"name": "sh", "arguments": {"command": "echo x > file"}}
    turn = {"turn": 1, "models": [{"wait_ms": 0}], "tools": [tool]}
    path.write_text("".join(json.dumps(item) + "\n" for item in [header, turn]))
    return path


def test_a_run_under_it_is_refused_as_usage_and_told_what_works(as_nobody, trace, workspace):
    replay = ("replay", trace, "--workspace", ".", "--speed", "inf")
    done = as_nobody(*replay, env={"CRAB_OBSERVER": "fanotify"})
    assert done.code == 2
    assert "crab: the observer fanotify takes root (CAP_SYS_ADMIN" in done.err
    hint = " ".join(done.err.partition("hint:")[2].split())
    assert 'observer="auto"' in hint
    assert "CRAB_OBSERVER=auto" in hint
    assert not (workspace / "file").exists()
    assert as_nobody(*replay, env={"CRAB_OBSERVER": "auto"}).code == 0
    assert (workspace / "file").exists()


def test_the_doctor_says_that_runs_under_it_are_refused(as_nobody):
    done = as_nobody("doctor", "--json", env={"CRAB_OBSERVER": "fanotify"})
    facts = {fact["name"]: fact for fact in done.data["facts"]}
    assert done.code == 3
    assert facts["observer"]["standing"] == "bad"
    assert "refused: fanotify takes root" in facts["observer"]["seen"]
    assert "no run can begin" in facts["observer"]["meaning"]
    assert not any("found by a scan" in fact["meaning"] for fact in facts.values())
    shown = as_nobody("doctor").out
    assert "auto: scan, as nothing can be watched here (fanotify takes root" in " ".join(
        shown.split()
    )


@pytest.mark.parametrize(
    "line",
    ["sparsity --turns 5 --workers 1", "latency --entries 5 --big-file 0", "any-turn --turns 1"],
)
def test_a_benchmark_of_nothing_else_is_refused(as_nobody, line, tmp_path):
    done = as_nobody("bench", *line.split(), "--observer", "fanotify", "--json")
    assert done.code == 2
    assert "the observer fanotify takes root" in done.error["message"]
    assert done.error["hint"] == "--observer scan works here"
    assert not list(tmp_path.glob("crab-bench-*"))
