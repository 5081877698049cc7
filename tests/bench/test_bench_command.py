import json
import os
import shlex
import subprocess
import sys

import pytest

from crabrt import bench
from crabrt.bench import Report
from crabrt.cli import main
from crabrt.cli.bench_options import BENCHES, EVERYWHERE, Given
from crabrt.cli.program import execute
from crabrt.cli.verbs.bench import command


def crab(*arguments, tmp_path):
    environ = {**os.environ, "CRAB_HOME": str(tmp_path / "store"), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "crabrt", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_table_says_what_was_met(tmp_path):
    done = crab("bench", "latency", "--entries", "120", "--changed", "20", "--repetitions", "1",
                "--peers", "cp", "--big-file", "0", "--scratch", str(tmp_path),
                tmp_path=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "known dirty set" in done.stdout
    assert "met" in done.stdout or "missed" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [], "neither scratch files nor a store are left"


def test_json_is_one_envelope(tmp_path):
    done = crab("bench", "traffic", "--entries", "120", "--turns", "1", "--peers", "", "--json",
                "--no-recorded", tmp_path=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["data"]["reports"]
    assert report["name"] == "traffic"


def test_an_unknown_peer_is_a_usage_error(tmp_path):
    done = crab("bench", "latency", "--peers", "tape", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "tape" in done.stderr


def test_a_table_says_what_repeats_it(tmp_path):
    options = ("sparsity", "--turns", "5", "--file-system", "here", "--observer", "scan",
               "--traces", str(tmp_path / "traces"), "--scratch", str(tmp_path))  # fmt: skip
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "trajectories.jsonl").write_text('{"traj": "a", "file": "a.jsonl"}\n')
    done = crab("bench", *options, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[1]
    assert line.startswith("crab bench sparsity --turns 5")
    assert "--observer scan --file-system here" in line
    assert "seed 1, file systems here, observers scan" in done.stdout
    assert "absent: 1 recorded runs (its workspace is not known)" in done.stdout
    assert "false_none" in done.stdout
    again = crab(*shlex.split(line)[1:], tmp_path=tmp_path)
    assert again.returncode == 0, again.stderr


def test_what_repeats_it_keeps_empty_values_and_switches(monkeypatch, capsys):
    monkeypatch.setattr(bench, "measure_latency", lambda *_: Report("latency", {}, {}))
    given = ["bench", "latency", "--no-elsewhere", "--peers", ""]
    assert execute([*given, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["data"]["reports"]
    assert shlex.split(report["command"]) == ["crab", *given, "--json"]


def test_several_values_where_one_is_meant_are_a_usage_error(tmp_path):
    done = crab("bench", "traffic", "--turns", "1", "--turns", "2", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "one --turns" in done.stderr
    done = crab("bench", "overhead", "--speed", "0", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "above 0" in done.stderr


def test_what_may_never_be_makes_it_fail(monkeypatch, capsys):
    def measure(options, environ, say):
        return Report("sparsity", {}, {}, wrong=["seed 3, turn 7: false_none"])

    monkeypatch.setattr(bench, "measure_sparsity", measure)
    monkeypatch.setattr(sys, "argv", ["crab", "bench", "sparsity"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "wrong: seed 3, turn 7: false_none" in capsys.readouterr().out


class Watched(Given):
    """Notes which parameters are read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = set()

    def __getitem__(self, parameter):
        self.read.add(parameter)
        return super().__getitem__(parameter)


def defaults():
    context = command.make_context("bench", [])
    return context.params | {"peers": ()}


@pytest.mark.parametrize("name", BENCHES)
def test_the_table_of_options_is_what_a_benchmark_reads(name, tmp_path):
    given = Watched(name, tmp_path, defaults())
    BENCHES[name].prepare(given)
    assert given.read == set(BENCHES[name].reads)


def test_every_option_is_read_by_somebody():
    read = {parameter for one in BENCHES.values() for parameter in one.reads} | EVERYWHERE
    assert set(defaults()) == read | {
        "name",
        "sources",
        "plot",
        "json",
        "home",
        "debug",
        "progress_fd",
    }


@pytest.fixture
def nothing_measured(monkeypatch):
    """Measuring fails: what is refused is refused before."""

    def measure(*_):
        raise AssertionError("it was measured")

    for name in BENCHES:
        monkeypatch.setattr(bench, f"measure_{name.replace('-', '_')}", measure)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("traffic --agents 4 --speed 2", ["--speed, --agents", "--agents: density"]),
        ("latency --continue l.state", ["--continue is no option of crab bench latency"]),
        ("sparsity --repetitions 9 --big-file 5G", ["--repetitions, --big-file"]),
        ("sparsity --no-elsewhere", ["--elsewhere is no option"]),
        ("--agents 4", ["--agents is no option of crab bench latency or traffic"]),
        ("--entries 10 --entries 20 --peers git", ["traffic takes one --entries"]),
        ("latency --observer scan --observer auto", ["latency takes one --observer"]),
        ("any-turn --turns 0", ["any-turn measures nothing with --turns 0"]),
        ("any-turn --turns 5 --turns 0", ["any-turn measures nothing with --turns 0"]),
        ("density --turns 0", ["density measures nothing with --turns 0"]),
        ("traffic --no-recorded --turns 0", ["traffic measures nothing with --turns 0"]),
        ("traffic --entries 0", ["traffic measures nothing with --entries 0"]),
        ("latency --entries 0 --big-file 0", ["neither a tree nor a big file"]),
    ],
)
def test_what_a_benchmark_does_not_take_is_refused_first(nothing_measured, capsys, line, told):
    assert execute(["bench", *line.split(), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    text = f"{error['message']} {error['hint']}"
    assert all(words in text for words in told), text


def test_defaults_of_other_benchmarks_are_nobodys_fault(monkeypatch):
    for name in ("latency", "traffic"):
        report = Report(name, {}, {})
        monkeypatch.setattr(bench, f"measure_{name}", lambda *_, report=report: report)
    assert execute(["bench", "--changed", "5", "--turns", "2", "--json"]) == 0


def test_the_help_of_one_benchmark_shows_what_it_takes(capsys):
    for line in (["bench", "density", "--help"], ["bench", "--json", "--help", "density"]):
        assert execute(line) == 0
        text = capsys.readouterr().out
        assert "crab bench density [OPTIONS]" in text
        assert "--agents" in text
        assert "--scratch" in text
        assert "--peers" not in text
        assert "crab bench density --agents 1" in text
        assert "crab bench traffic" not in text
    assert execute(["bench", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "density: how many at once" in text
    assert "latency, traffic: sizes of the trees" in text


def test_recorded_runs_that_are_not_there_are_no_measurement(tmp_path):
    (tmp_path / "trajectories.jsonl").write_text('{"traj": "a", "file": "a.jsonl"}\n')
    where = ("--traces", str(tmp_path), "--scratch", str(tmp_path))
    done = crab("bench", "overhead", *where, tmp_path=tmp_path)
    assert done.returncode == 4
    assert "no recorded run can be run again here (a: its workspace is not known)" in " ".join(
        done.stderr.split()
    )
    done = crab("bench", "sparsity", "--turns", "0", *where, tmp_path=tmp_path)
    assert done.returncode == 2
    assert "there is nothing to run" in done.stderr
