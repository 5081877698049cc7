"""The generator does what it says, repeats from its seed, and leaves no process behind."""

import os

import pytest

from crabrt.testing import oracle
from crabrt.testing.hostile import GROUNDWORK, OPERATIONS, HostileRun, NotApplicable
from crabrt.testing.hostile.hand import TREE_BYTES, Unsupported

TRIES = 300


@pytest.fixture
def run(tmp_path):
    with HostileRun(1, tmp_path / "tree", outside=tmp_path / "outside") as started:
        for name in GROUNDWORK:
            _do(started, name)
        yield started


def _do(run, name):
    """Do it once; the choices are random, so an unlucky one is drawn again."""
    for _ in range(TRIES):
        try:
            return run.do(name)
        except Unsupported as error:
            pytest.skip(f"file system: {name}: {error}")
        except NotApplicable:
            pass
    pytest.fail(f"{name} never found anything to do")


@pytest.mark.root
@pytest.mark.parametrize("name", [n for n in OPERATIONS if not OPERATIONS[n].undone])
def test_an_operation_changes_the_state(name, run):
    if name == "make a tree deeper than PATH_MAX":
        _do(run, "remove a tree deeper than PATH_MAX")
    before = oracle.digest(run.root)
    for _ in range(20):  # a mode may be drawn that was there already
        step = _do(run, name)
        if oracle.digest(run.root) != before:
            return
    pytest.fail(f"{step} changed nothing")


@pytest.mark.root
@pytest.mark.parametrize("name", [n for n in OPERATIONS if OPERATIONS[n].undone])
def test_an_operation_that_is_undone_changes_no_state(name, run):
    for _ in range(1 if "process" in name else 3):
        before = oracle.manifest(run.root)
        step = _do(run, name)
        assert oracle.describe_difference(before, oracle.manifest(run.root)) == "", step


def test_the_same_seed_does_the_same(tmp_path):
    told, states = [], []
    for copy in ("one", "two"):
        with HostileRun(7, tmp_path / copy / "tree", outside=tmp_path / copy / "outside") as run:
            told.append([str(run.turn()) for _ in range(60)])
            states.append(oracle.manifest(run.root, times=False))
    assert told[0] == told[1]
    assert oracle.describe_difference(*states) == ""


def test_another_seed_does_something_else(tmp_path):
    told = []
    for seed in (1, 2):
        with HostileRun(seed, tmp_path / str(seed)) as run:
            told.append([str(run.turn()) for _ in range(5)])
    assert told[0] != told[1]


def test_turns_that_say_they_undid_everything_did(tmp_path):
    undone = 0
    with HostileRun(3, tmp_path / "tree", outside=tmp_path / "outside") as run:
        before = oracle.manifest(run.root)
        for _ in range(150):
            turn = run.turn()
            after = oracle.manifest(run.root)
            if turn.undone:
                undone += 1
                assert oracle.describe_difference(before, after) == "", (run.seed, str(turn))
            assert sum(fact.size for fact in after.values()) <= TREE_BYTES + (1 << 20)
            before = after
    assert undone > 10


def _maps(pid):
    with open(f"/proc/{pid}/maps") as file:
        return file.read()


def test_a_kept_mapping_is_alive_between_turns_and_its_stores_move_no_time(tmp_path):
    with HostileRun(5, tmp_path / "tree") as run:
        _do(run, "a process starts and maps a file")
        ((path, holder),) = run.held().items()
        assert os.fsdecode(path) in _maps(holder.pid)
        moved = 0
        for _ in range(20):
            _do(run, "a store through a kept mapping")
            before, seen = os.stat(os.path.join(run.root, path)), oracle.digest(run.root)
            _do(run, "a store through a kept mapping")
            assert oracle.digest(run.root) != seen
            moved += os.stat(os.path.join(run.root, path)).st_mtime_ns != before.st_mtime_ns
        assert moved < 20  # write-back may clean the page in between; then a time moves


def test_no_process_outlives_a_run(tmp_path):
    with HostileRun(5, tmp_path / "tree") as run:
        _do(run, "a process starts and maps a file")
        _do(run, "a process starts and opens a file")
        pids = [holder.pid for holder in run.held().values()]
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert len(pids) == 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
