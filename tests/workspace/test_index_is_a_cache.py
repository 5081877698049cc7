"""The saved index: taken over when it fits, dropped when in doubt, never a wrong answer."""

import os
import shutil
import signal
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.store import Store
from crabrt.testing.memory import MemoryObjects
from crabrt.workspace import Workspace
from crabrt.workspace.index_file import NAME


@pytest.fixture
def saved(tracked):
    for name in ("a", "b", "c"):
        (tracked.root / name).mkdir()
        (tracked.root / name / "file").write_bytes(name.encode())
    os.link(tracked.root / "a" / "file", tracked.root / "linked")
    tracked.settle()
    tracked.tracker.save()
    return tracked


def loaded(tracked, objects=None):
    tracker = tracked.new_tracker()
    tracker.load(objects or tracked.objects)
    return tracker


def test_another_process_goes_on_where_this_one_stopped(saved):
    tracker = loaded(saved)
    assert tracker.root == saved.tracker.root
    assert tracker.scan().clean
    (saved.root / "a" / "file").write_bytes(b"changed")
    snapshot = tracker.capture(tracker.scan(), saved.objects)
    assert [change.path for change in snapshot.changes] == [b"a/file", b"linked"]
    fresh = saved.new_tracker()
    assert fresh.capture(fresh.scan(), saved.objects).root == snapshot.root


def test_deltas_are_appended_and_read_back(saved):
    path = saved.workspace.state_dir / NAME
    inode, size = path.stat().st_ino, path.stat().st_size
    tracker = loaded(saved)
    for number in range(20):
        (saved.root / "b" / f"{number}").mkdir()
        (saved.root / "b" / f"{number}" / "x").write_bytes(b"%d" % number)
        if number > 3:
            shutil.rmtree(saved.root / "b" / f"{number - 2}")
        tracker.capture(tracker.scan(), saved.objects)
        tracker.save()
        assert path.stat().st_ino == inode
        assert loaded(saved).root == tracker.root
    assert path.stat().st_size > size
    after = loaded(saved)
    assert {n.path for n in after._top.walk()} == {n.path for n in tracker._top.walk()}
    assert after.capture(after.scan(), saved.objects).root == tracker.root


def test_a_long_history_is_folded_into_a_new_base(saved, monkeypatch):
    monkeypatch.setattr("crabrt.workspace.index_file._DELTAS_MIN_BYTES", 0)
    path = saved.workspace.state_dir / NAME
    inodes, size = set(), path.stat().st_size
    for number in range(40):
        (saved.root / "a" / "file").write_bytes(b"%d" % number)
        saved.capture()
        saved.tracker.save()
        inodes.add(path.stat().st_ino)
        assert path.stat().st_size < 5 * size
    assert len(inodes) > 1
    assert os.listdir(saved.workspace.state_dir) == [NAME]


def test_a_root_that_the_store_has_not_is_not_believed(saved):
    assert loaded(saved, MemoryObjects()).root is None


def test_a_workspace_that_was_recreated_has_no_index(saved):
    shutil.move(saved.root, saved.base / "aside")
    saved.root.mkdir()
    saved.workspace = Workspace.open(saved.root, saved.home)
    assert loaded(saved).root is None


def test_after_another_boot_young_files_are_read_again(saved, monkeypatch):
    monkeypatch.setattr("crabrt.workspace.tracker.boot_id", lambda: "another boot")
    tracker = loaded(saved)
    scan = tracker.scan()
    assert sum(len(seen.read) for seen in scan.seen) == 4
    assert tracker.capture(scan, saved.objects).root == saved.tracker.root
    assert tracker.scan().clean


def test_files_older_than_the_last_save_of_another_boot_are_believed(saved, monkeypatch):
    monkeypatch.setattr("crabrt.workspace.tracker.boot_id", lambda: "another boot")
    monkeypatch.setattr("crabrt.workspace.tracker.UNWRITTEN_NS", -3_600_000_000_000)
    now = time.time_ns()
    monkeypatch.setattr("crabrt.workspace.tracker.time.time_ns", lambda: now + 7_200_000_000_000)
    assert loaded(saved).scan().clean


def test_excludes_given_anew_are_applied_to_what_was_captured(saved):
    saved.workspace = Workspace.open(saved.root, saved.home, exclude=["/b/"])
    tracker = loaded(saved)
    snapshot = tracker.capture(tracker.scan(), saved.objects)
    assert [change.path for change in snapshot.changes] == [b"b", b"b/file"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_anywhere_gives_an_older_index_or_none(saved, data):
    path = saved.workspace.state_dir / NAME
    if not hasattr(saved, "pristine"):
        (saved.root / "c" / "file").write_bytes(b"later")
        saved.capture()
        saved.tracker.save()
        saved.pristine = path.read_bytes()
    damaged = bytearray(saved.pristine)
    at = data.draw(st.integers(0, len(damaged) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "zero", "insert"]))
    if how == "flip":
        damaged[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del damaged[at:]
    elif how == "zero":
        damaged[at : at + 64] = bytes(len(damaged[at : at + 64]))
    else:
        damaged[at:at] = b"\0" * data.draw(st.integers(1, 40))
    path.write_bytes(damaged)
    tracker = loaded(saved)
    snapshot = tracker.capture(tracker.scan(), saved.objects)
    assert snapshot.root == saved.tracker.root
    tracker.save()
    assert loaded(saved).root == saved.tracker.root


def test_two_trackers_that_save_in_turn_never_mix_their_histories(saved):
    one, two = loaded(saved), loaded(saved)
    for number in range(12):
        tracker = (one, two)[number % 2]
        (saved.root / f"new-{number}").mkdir()
        tracker.capture(tracker.scan(), saved.objects)
        tracker.save()
        reader = loaded(saved)
        assert reader.root == tracker.root
        assert reader.capture(reader.scan(), saved.objects).root == tracker.root


@pytest.mark.parametrize("attempt", range(8))
def test_a_writer_killed_while_it_saves_leaves_an_index_that_loads(saved, attempt):
    Store.open(saved.home, create=True).close()
    pid = os.fork()
    if pid == 0:
        try:
            writer = Store.open(saved.home).writer()
            tracker = saved.new_tracker()
            number = 0
            while True:
                number += 1
                (saved.root / "a" / f"{number % 50}").write_bytes(os.urandom(10))
                tracker.capture(tracker.scan(), writer)
                writer.flush()
                tracker.save()
        finally:
            os._exit(1)
    path = saved.workspace.state_dir / NAME
    size = path.stat().st_size
    while path.stat().st_size < size + 3_000 * (attempt + 1):
        os.sched_yield()
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

    with Store.open(saved.home) as store, store.writer() as writer:
        tracker = saved.new_tracker()
        tracker.load(writer)
        assert tracker.root is not None
        fresh = saved.new_tracker()
        assert fresh.capture(fresh.scan(), writer).root == (
            tracker.capture(tracker.scan(), writer).root
        )
