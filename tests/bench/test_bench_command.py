import json
import os
import subprocess
import sys


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
