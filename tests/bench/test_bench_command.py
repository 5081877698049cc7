import json
import os
import shlex
import subprocess
import sys

import pytest

from crabrt.bench import Report
from crabrt.cli import main
from crabrt.cli.bench_options import MEASURES


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
                tmp_path=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["data"]["reports"]
    assert report["name"] == "traffic"


def test_an_unknown_peer_is_a_usage_error(tmp_path):
    done = crab("bench", "latency", "--peers", "tape", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "tape" in done.stderr


def test_a_table_says_what_repeats_it(tmp_path):
    options = ("sparsity", "--turns", "5", "--file-system", "here", "--observer", "scan",
               "--traces", str(tmp_path / "traces"), "--scratch", str(tmp_path), "--peers", "",
               "--no-elsewhere")  # fmt: skip
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "trajectories.jsonl").write_text('{"traj": "a", "file": "a.jsonl"}\n')
    done = crab("bench", *options, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[1]
    assert line.startswith("crab bench sparsity --no-elsewhere --turns 5")
    assert "--observer scan --file-system here" in line
    assert "seed 1, file systems here, observers scan" in done.stdout
    assert "absent: 1 recorded runs (its workspace is not known)" in done.stdout
    assert "false_none" in done.stdout
    words = shlex.split(line)
    assert words[words.index("--peers") + 1] == ""
    assert "--no-elsewhere" in words
    again = crab(*words[1:], tmp_path=tmp_path)
    assert again.returncode == 0, again.stderr


def test_several_values_where_one_is_meant_are_a_usage_error(tmp_path):
    done = crab("bench", "traffic", "--turns", "1", "--turns", "2", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "one --turns" in done.stderr
    done = crab("bench", "overhead", "--speed", "0", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "above 0" in done.stderr


def test_what_may_never_be_makes_it_fail(monkeypatch, capsys):
    def measure(scratch, given, say):
        return Report("sparsity", {}, {}, wrong=["seed 3, turn 7: false_none"])

    monkeypatch.setitem(MEASURES, "sparsity", measure)
    monkeypatch.setattr(sys, "argv", ["crab", "bench", "sparsity"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "wrong: seed 3, turn 7: false_none" in capsys.readouterr().out
