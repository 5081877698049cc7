import json
import os
import shutil
import subprocess
import sys

import pytest

from crabrt.bench import LatencyOptions, TrafficOptions, measure_latency, measure_traffic
from crabrt.bench.harness import interleave, machine
from crabrt.bench.keeping import needed_bytes, read_state
from crabrt.bench.peers import PEERS, Peer, PeerFailed, present
from crabrt.bench.report import OURS, Bar, Report, Samples, Series, ratios
from crabrt.bench.trees import make_tree, seeded

HAVE_GIT = shutil.which("git") is not None


def quiet(what):
    assert what


@pytest.fixture(scope="module")
def latency(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("latency")
    options = LatencyOptions(
        scratch, entries=(150,), changed=(1, 20), repetitions=2, peers=("git", "cp"),
        big_file_bytes=3 << 20,
    )  # fmt: skip
    report = measure_latency(options, os.environ, quiet)
    assert list(scratch.iterdir()) == [], "what was made is removed"
    return report


def test_latency_reports_every_phase_beside_its_floor(latency):
    found = {(row.who, row.what) for row in latency.rows}
    for what in (
        "baseline", "captured", "durable", "scan", "known dirty set", "restore",
        "restore after its plan", "restore elsewhere", "diff", "fork",
    ):  # fmt: skip
        assert (OURS, what) in found
    for what in ("two appends and syncs", "replace", "read", "copy"):
        assert ("floor", what) in found
    assert ("cp", "snapshot") in found
    assert any("MiB, 4 KiB changed" in row.scenario for row in latency.rows)


def test_every_figure_has_as_many_values_as_rounds(latency):
    assert {len(row.series.values) for row in latency.rows} == {2}
    assert all(value > 0 for row in latency.rows for value in row.series.values)


@pytest.mark.skipif(not HAVE_GIT, reason="compares with git")
def test_latency_prints_its_bars(latency):
    whats = [bar.what for bar in latency.bars]
    assert whats.count("known dirty set") == 2, "beside the floor, and against git"
    assert "scan" in whats
    assert whats.count("restore after its plan") == 2, "one for each number of changed files"


def test_a_report_is_plain_json(latency):
    data = json.loads(json.dumps(latency.data()))
    assert data["name"] == "latency"
    assert data["settings"]["repetitions"] == 2
    assert {"cores", "kernel", "file system"} <= data["machine"].keys()


def test_traffic_counts_each_turn(tmp_path):
    options = TrafficOptions(tmp_path, entries=150, turns=7, peers=("git",))
    report = measure_traffic(options, os.environ, quiet)
    kinds = {row.scenario for row in report.rows} - {"all turns"}
    assert len(kinds) == 7
    stored = {row.scenario: row.series.median for row in report.rows
              if (row.who, row.what) == (OURS, "stored")}  # fmt: skip
    full = next(row for row in report.rows if row.who == "full copy").series.median
    assert all(0 < stored[kind] < full for kind in kinds)


def test_traffic_is_the_same_for_the_same_seed(tmp_path):
    def needed():
        options = TrafficOptions(tmp_path, entries=120, turns=3, peers=())
        report = measure_traffic(options, os.environ, quiet)
        return [row.series.values for row in report.rows if row.who == "needed"]

    assert needed() == needed()


def test_traffic_of_recorded_runs_is_what_their_turns_stored(tmp_path, record, environ):
    change = "head -c 3000 /dev/urandom > a.py"
    traces = record(tmp_path / "traces", "first", change, "true", f"{change}; cp a.py docs/c.py")
    broken = record(tmp_path / "traces", "broken", "true", setup="setup = 'exit 3'\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = TrafficOptions(
        scratch, turns=0, peers=("git",), traces=(traces,), keep=tmp_path / "traffic.state"
    )
    report = measure_traffic(options, environ, quiet)
    assert "ended with 3" in report.absent["broken"], broken
    rows = {(row.scenario, row.who, row.what): row.series.values for row in report.rows}
    stored = rows["first", OURS, "stored"]
    assert len(stored) == 3
    assert stored[1] == 0 == rows["first", "allowed", "stored"][1], "that turn changed nothing"
    assert rows["first", "needed", "changed directories"] == (1, 0, 2)
    assert all(value > 3000 for value in (stored[0], stored[2]))
    assert stored == rows["all recorded turns", OURS, "stored"]
    assert {bar.scenario for bar in report.bars} == {"first", "all recorded turns"}
    again = measure_traffic(options, environ, quiet)
    assert [row.series for row in again.rows] == [row.series for row in report.rows], "kept"


def test_needed_counts_changed_files_and_their_directories(tmp_path):
    for directory in ("a", "gone"):
        (tmp_path / directory).mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1" * 5000)
    (tmp_path / "a" / "y").write_bytes(os.urandom(5000))
    (tmp_path / "gone" / "z").write_bytes(b"z")
    before = read_state(tmp_path)
    (tmp_path / "a" / "x").write_bytes(b"2" * 5000)
    shutil.rmtree(tmp_path / "gone")
    content, directories = needed_bytes(tmp_path, before, read_state(tmp_path))
    assert 0 < content < 100
    assert directories == 3  # a, gone, and the top, which held gone


def test_an_absent_peer_is_listed_and_never_measured(tmp_path):
    found, absent = present(("git", "restic"), tmp_path, {"PATH": str(tmp_path)})
    assert found == []
    assert absent == {"git": "not installed", "restic": "not installed"}


def test_a_peer_that_fails_says_why(tmp_path):
    class Broken(Peer):
        name = "broken"

        def snapshot(self):
            self.run([sys.executable, "-c", "raise SystemExit('no space')"])

        def restore(self, directory):
            raise AssertionError(directory)

    with pytest.raises(PeerFailed, match="broken ended with 1: no space"):
        Broken(tmp_path, tmp_path / "repo", os.environ).snapshot()


@pytest.mark.parametrize("name", ["git", "restic", "borg", "cp"])
def test_each_peer_brings_back_what_it_kept(tmp_path, name):
    if PEERS[name].absence(tmp_path, os.environ):
        pytest.skip(f"{name} is not installed")
    tree = make_tree(tmp_path / "work", 120)
    peer = PEERS[name](tree.path, tmp_path / "repo", os.environ)
    peer.prepare()
    peer.snapshot()
    assert peer.stored_bytes() > 0
    peer.restore(tmp_path / "back")
    subprocess.run(["diff", "-r", tree.path, tmp_path / "back"], check=True)


def test_a_tree_has_the_entries_it_says(tmp_path):
    tree = make_tree(tmp_path / "work", 400)
    there = list(tree.path.rglob("*"))
    assert len(there) == tree.entries
    assert 300 < tree.entries <= 400
    assert sum(path.stat().st_size for path in there if path.is_file()) == tree.size_bytes


def test_an_edit_can_be_taken_back(tmp_path):
    tree = make_tree(tmp_path / "work", 120)
    before = {name: (tree.path / name).read_bytes() for name in tree.files}
    edit = tree.edit(20, seeded(7))
    edit.apply()
    changed = {name for name in tree.files if (tree.path / name).read_bytes() != before[name]}
    assert changed == edit.after.keys()
    assert len(changed) == 20
    edit.revert()
    assert all((tree.path / name).read_bytes() == data for name, data in before.items())


def test_rounds_begin_with_another_case_each_time(tmp_path):
    order = []

    def case(name):
        def work():
            order.append(name)
            return {"ms": 1.0}

        return work

    samples = Samples()
    for number in range(3):
        interleave({n: case(n) for n in "abc"}, samples, number, tmp_path)
    assert "".join(order) == "abcbcacab"
    assert samples.get("a", "ms") == [1.0] * 3


def test_a_bar_is_judged_by_the_median_round():
    bar = Bar("s", "w", "g", ratios([1.0, 9.0, 1.0], [2.0, 2.0, 2.0]))
    assert bar.met
    assert (bar.ratio.low, bar.ratio.high) == (0.5, 4.5)
    assert not Bar("s", "w", "g", Series((1.2, 0.2, 1.1))).met


def test_a_report_of_nothing_is_still_one(tmp_path):
    assert Report("latency", machine(tmp_path), {}).data()["rows"] == []
