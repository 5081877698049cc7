"""What the benchmarks stand on: workers, units that are kept, workspaces, counts."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.bench.apart import Worker, WorkFailed, apart, environment
from crabrt.bench.big_file import MEMORY_MIB, measure_memory
from crabrt.bench.harness import observer_absence, rotated, side_by_side
from crabrt.bench.kept import Kept
from crabrt.bench.recorded import CannotMake, Grounds, find_recorded
from crabrt.bench.report import Report, against, percentile
from crabrt.bench.subject import Subject
from crabrt.bench.trees import make_tree, seeded, tree_at
from crabrt.bench.watched import watched
from crabrt.errors import NotFound, UsageError


def test_a_worker_answers_with_what_its_work_took(tmp_path, environ):
    where = {"tree": str(tmp_path / "tree"), "home": str(tmp_path / "store"), "size": 40 << 20}
    done = apart("crabrt.bench.big_file:written", where, environ)
    assert (tmp_path / "tree" / "big.bin").stat().st_size == 40 << 20
    assert done.cpu_s > 0
    assert done.peak_bytes - done.start_bytes > 10 << 20, "it writes 16 MiB at a time"
    assert done.result["wall_s"] > 0


def test_the_error_of_a_worker_comes_back(tmp_path, environ):
    given = {"tree": "/proc/not/here", "size": 1}
    with pytest.raises(WorkFailed, match="big_file:written: FileNotFoundError") as caught:
        apart("crabrt.bench.big_file:written", given, environ)
    assert "Traceback" in caught.value.where


def test_a_worker_that_is_stopped_is_gone(tmp_path, environ):
    given = {"tree": str(tmp_path / "tree"), "entries": 60, "steps": [], "seed": 1, "home": None,
             "speed": 1.0, "observer": "scan"}  # fmt: skip
    worker = Worker("crabrt.bench.crowd:live", given, environ)
    assert worker.hear()["entries"] > 30
    worker.stop()
    assert worker._process.returncode is not None


def test_a_worker_does_not_outlive_whoever_started_it(tmp_path, environ):
    given = {"tree": str(tmp_path / "tree"), "entries": 60, "steps": [[600_000, 0]], "seed": 1,
             "home": None, "speed": 1.0, "observer": "scan"}  # fmt: skip
    code = (
        "import json, os, sys; from crabrt.bench.apart import Worker\n"
        "worker = Worker('crabrt.bench.crowd:live', json.loads(sys.argv[1]), os.environ)\n"
        "worker.hear(); worker.tell('go'); print(worker._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(given)], env=environ,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    watch = os.pidfd_open(pid) if os.path.exists(f"/proc/{pid}") else None
    if watch is not None:
        assert select.select([watch], [], [], 60)[0], "it thinks for ten minutes otherwise"
        os.close(watch)


@pytest.mark.root
def test_a_benchmark_that_is_terminated_leaves_nothing(tmp_path, environ):
    command = [sys.executable, "-m", "crabrt", "bench", "sparsity", "--turns", "5000",
               "--observer", "scan", "--file-system", "tmpfs", "--scratch", str(tmp_path),
               "--run", "service", "--run-turns", "1"]  # fmt: skip
    bench = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("crab-bench-*/tmp/crabrt-tmpfs-*/mounted/tree/*")):
        assert bench.poll() is None
    bench.send_signal(signal.SIGTERM)
    assert bench.wait(60) == 130
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_the_memory_of_a_command_is_its_own(environ):
    ballast = bytearray(300 << 20)  # what the parent has is not the command's
    small = watched([sys.executable, "-c", "pass"], environ)
    large = watched([sys.executable, "-c", "bytearray(100 << 20)"], environ)
    assert len(ballast) == 300 << 20
    assert small.peak_bytes < 60 << 20
    assert 90 << 20 < large.peak_bytes - small.peak_bytes < 120 << 20
    assert watched([sys.executable, "-c", "raise SystemExit(3)"], environ).exit_code == 3


def test_workers_see_no_settings_of_the_user(tmp_path):
    seen = environment({"CRAB_OBSERVER": "scan", "PATH": "/bin", "HOME": "/root"}, tmp_path)
    assert "CRAB_OBSERVER" not in seen
    assert seen["PATH"] == "/bin"
    assert seen["XDG_CONFIG_HOME"].startswith(str(tmp_path))


def test_units_that_are_done_are_kept(tmp_path):
    path, calls = tmp_path / "state", []

    def work(name):
        return lambda: calls.append(name) or {"name": name}

    with Kept(path, "sparsity", {"seed": 1}) as kept:
        assert kept.once("a", work("a")) == {"name": "a"}
        assert kept.once("a", work("again")) == {"name": "a"}
    with open(path, "ab") as file:
        file.write(b'{"key": "b", "found": {"na')  # killed while it wrote
    with Kept(path, "sparsity", {"seed": 1}) as kept:
        assert kept.once("a", work("third")) == {"name": "a"}
        assert kept.once("b", work("b")) == {"name": "b"}
    assert calls == ["a", "b"]
    assert [json.loads(line).get("key") for line in path.read_text().splitlines()] == [
        None, "a", "b"
    ]  # fmt: skip


def test_units_that_could_not_be_run_are_tried_again(tmp_path):
    path = tmp_path / "state"
    with Kept(path, "sparsity", {}) as kept:
        assert kept.once("a", lambda: {"failed": "no loop devices"})["failed"]
    with Kept(path, "sparsity", {}) as kept:
        assert kept.once("a", lambda: {"turns": 3}) == {"turns": 3}


def test_units_of_other_options_are_refused(tmp_path):
    path = tmp_path / "state"
    with Kept(path, "sparsity", {"seed": 1}):
        pass
    with pytest.raises(UsageError, match="of other options"):
        Kept(path, "sparsity", {"seed": 2})
    with pytest.raises(UsageError, match="of other options"):
        Kept(path, "overhead", {"seed": 1})
    path.write_text("not JSON\n")
    with pytest.raises(UsageError, match="does not say"):
        Kept(path, "sparsity", {"seed": 1})


def test_units_of_other_code_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "state"
    with Kept(path, "sparsity", {}):
        pass
    monkeypatch.setattr("crabrt.__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "__init__.py").write_text("pass\n")
    with pytest.raises(UsageError, match="other code"):
        Kept(path, "sparsity", {})


def test_a_workspace_is_put_back_before_every_run(tmp_path, scratch, environ, record):
    (run,), _ = find_recorded([record(tmp_path / "traces", "small", "true")])
    grounds = Grounds(scratch, environ)
    for _ in range(2):
        with grounds.workspace(run) as (workspace, _):
            assert (workspace / "a.py").read_text() == "one\n"
            (workspace / "a.py").write_text("spoilt")
            (workspace / "more").touch()
            (workspace / ".." / "beside").touch()
            assert not (scratch / "small" / "pristine" / "beside").exists()
    assert sorted(path.name for path in (scratch / "small").iterdir()) == ["live", "pristine"]


def test_a_workspace_that_cannot_be_made_is_tried_once(tmp_path, scratch, environ, record):
    setup = f"setup = 'echo x >> {tmp_path}/tries; echo why >&2; exit 4'"
    (run,), _ = find_recorded([record(tmp_path / "traces", "small", "true", setup=setup)])
    grounds = Grounds(scratch, environ)
    for _ in range(2):
        with pytest.raises(CannotMake, match="4: why"), grounds.workspace(run):
            pytest.fail("there is none")
    assert (tmp_path / "tries").read_text() == "x\n"


def test_recorded_runs_of_others_are_known_by_their_catalogue(tmp_path):
    lines = [
        {"traj": "a/1", "file": "a.jsonl", "workspace": {
            "kind": "sdist", "spec": "tiny==1.0", "pip_extra": ["pytest", "urllib3<2"]}},
        {"traj": "a/2", "file": "a.jsonl", "workspace": {"kind": "git"}},
        {"traj": "a/3", "file": "a.jsonl"},
    ]  # fmt: skip
    (tmp_path / "trajectories.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (run,), absent = find_recorded([tmp_path])
    assert (run.name, run.trajectory, run.ground, run.ours) == ("a/1", "a/1", "tiny==1.0", False)
    assert dict(run.variables)["CRABBENCH_EXTRA"] == "pytest urllib3<2"
    assert absent == {"a/2": "its workspace is git", "a/3": "its workspace is not known"}
    with pytest.raises(NotFound, match="is called b"):
        find_recorded([tmp_path], ["b"])


def test_rounds_are_rotated():
    assert ["".join(rotated("abc", number)) for number in range(4)] == ["abc", "bca", "cab", "abc"]
    assert rotated([], 3) == []


def test_units_side_by_side_give_what_each_made():
    assert dict(side_by_side(range(9), lambda n: n * n, 3)) == {n: n * n for n in range(9)}
    with pytest.raises(ZeroDivisionError):
        list(side_by_side([0], lambda n: 1 / n, 2))


def test_counts_where_none_is_allowed_miss_their_bar_at_one():
    assert (against(0, 0), against(1, 0), against(1, 4)) == (0.0, 2.0, 0.25)


def test_percentiles_are_values_that_were_measured():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) == 0.0


def test_a_tree_is_found_again(tmp_path):
    made = make_tree(tmp_path / "tree", 150)
    found = tree_at(made.path)
    assert found.entries == made.entries
    assert found.size_bytes == made.size_bytes
    assert set(found.files) == set(made.files)


def test_the_memory_of_a_big_file_is_measured_in_fresh_processes(scratch, environ):
    report = Report("latency", {}, {})
    measure_memory(report, scratch, 48 << 20, 1, environ)
    found = {row.what: row.series.median for row in report.rows if row.unit == "MiB"}
    assert set(found) == {"memory, first capture", "memory, capture of 4 KiB changed"}
    assert all(0 < mib < MEMORY_MIB for mib in found.values())
    assert all(bar.met for bar in report.bars)
    assert not (scratch / "memory").exists()


def test_nothing_changed_is_told_from_something(tmp_path):
    tree = make_tree(tmp_path / "tree", 100)
    with Subject(tree.path, tmp_path / "store") as subject:
        subject.checkpoint()
        assert subject.nothing_ms() > 0
        tree.edit(1, seeded(1)).apply()
        with pytest.raises(RuntimeError, match="not left alone"):
            subject.nothing_ms()
        assert subject.looks == {"scan": 3}


@pytest.mark.root
def test_a_subject_can_be_observed_by_fanotify(tmp_path):
    tree = make_tree(tmp_path / "tree", 100)
    with Subject(tree.path, tmp_path / "store", "fanotify") as subject:
        subject.checkpoint()
        subject.nothing_ms()
        edit = tree.edit(2, seeded(1))
        edit.apply()
        made = subject.checkpoint()
        assert {change.path.decode() for change in made.snapshot.changes} == set(edit.after)
        assert subject.looks["fanotify"] == 2


def test_an_observer_that_is_allowed_is_not_absent():
    assert observer_absence("scan") is None
    assert observer_absence("guess") is not None
