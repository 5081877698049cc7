"""A restore really killed at each of its steps is finished by the next command, exactly."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from crabrt.core import failpoints
from crabrt.journal.restores import DAY_NS, End, RestoreLog
from crabrt.testing import crash

CHILD = Path(__file__).with_name("restoring_child.py")
POINTS = [name for name in sorted(failpoints.ALL) if name.startswith(("restore.", "restore_log."))]


@pytest.fixture
def torn_apart(place):
    return _tear_apart(place)


@pytest.fixture(scope="module")
def hits(tmp_path_factory, place_type):
    """How often an undisturbed restore of such a workspace hits each failpoint."""
    top = tmp_path_factory.mktemp("undisturbed")
    place = _tear_apart(place_type(top))
    place.close()
    return crash.count_hits(CHILD, _arguments(place), into=top / "hits")


def _tear_apart(place):
    """A workspace far from its target, so that a restore takes every kind of step."""
    place.file("stays", b"stays")
    place.file("replaced", b"old bytes" * 100)
    place.file("metadata", b"same bytes", 0o640)
    os.link(place.file("linked/one", b"shared"), place.path / "linked/two")
    place.file("closed/inside", b"1")
    (place.path / "closed").chmod(0o500)
    place.file("file-then-dir", b"1")
    (place.path / "dir-then-file").mkdir()
    place.file("dir-then-file/below", b"1")
    (place.path / "link").symlink_to("somewhere")
    os.mkfifo(place.path / "fifo")
    place.file("gone/deep/file", b"1")
    place.target, place.wanted = place.checkpoint(), place.facts()
    place.file("replaced", b"new")
    (place.path / "metadata").chmod(0o600)
    (place.path / "linked/two").unlink()
    place.file("linked/two", b"not shared")
    place.file("closed/inside", b"2")
    place.file("closed/more", b"2")
    (place.path / "file-then-dir").unlink()
    place.file("file-then-dir/below", b"2")
    subprocess.run(["rm", "-rf", place.path / "dir-then-file", place.path / "gone"], check=True)
    place.file("dir-then-file", b"2")
    (place.path / "link").unlink()
    (place.path / "link").symlink_to("elsewhere")
    (place.path / "fifo").unlink()
    place.file("added/by/the/agent", b"2")
    place.was = place.facts()
    return place


def _arguments(place, *scope):
    return [place.path, place.home, place.target.hex(), *scope]


def test_every_step_has_a_failpoint_that_is_hit(hits):
    assert {name for name in POINTS if not hits.get(name)} == set()


ONCE = {f"restore.{step}" for step in ("begun", "all_staged", "committed", "synced", "ended")}
MOMENTS = [(point, "first") for point in POINTS] + [(p, "last") for p in POINTS if p not in ONCE]


@pytest.mark.parametrize("moment", MOMENTS, ids="-".join)
def test_a_killed_restore_is_rolled_forward(moment, hits, torn_apart, tmp_path, assert_same):
    place = torn_apart
    point, which = moment
    hit = 1 if which == "first" else hits[point]

    died = crash.kill_at(point, hit, CHILD, _arguments(place), mark=tmp_path / "mark")

    assert died.killed
    log = RestoreLog(place.workspace.state_dir)
    interrupted = log.interrupted()
    begun = interrupted or next(iter(log.records()), None)
    report = place.recover()
    if interrupted is not None:
        assert report.recovered
        assert report.verified
        assert report.not_restored == ()
    else:
        assert report is None
    assert place.temporary_names() == []
    assert log.interrupted() is None
    if begun is None:
        assert_same(place.was, place.facts())
        return
    assert_same(place.wanted, place.facts())
    place.undo()
    assert_same(place.was, place.facts())


@pytest.mark.parametrize("point", ["restore.renamed", "restore.linked", "restore.settled"])
def test_a_recovery_that_is_killed_itself_is_finished(point, torn_apart, tmp_path, assert_same):
    place = torn_apart
    crash.kill_at("restore.renamed", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    again = [place.path, place.home, "recover"]
    crash.kill_at(point, 1, CHILD, again, mark=tmp_path / "mark2")
    assert place.recover().verified
    assert_same(place.wanted, place.facts())
    assert place.temporary_names() == []


def test_kills_at_random_steps(place, tmp_path, assert_same):
    rng = random.Random(20)
    for i in range(100):
        place.file(f"{i % 7}/{i}", b"%d" % i)
    one, first = place.checkpoint(), place.facts()
    for i in range(0, 100, 2):
        place.file(f"{i % 7}/{i}", b"changed %d" % i)
        place.file(f"new/{i}", b"new")
    two, second = place.checkpoint(), place.facts()
    ways = [(one, first, "restore.deleted"), (two, second, "restore.directory_made")]
    for number in range(8):
        place.target, wanted, other = ways[number % 2]
        point = rng.choice(["restore.renamed", "restore.staged", "restore.temp_made", other])
        hit = 1 if point == "restore.directory_made" else rng.randint(1, 50)
        mark = tmp_path / f"mark{number}"
        crash.kill_at(point, hit, CHILD, _arguments(place), mark=mark)
        assert place.recover().verified
        assert_same(wanted, place.facts())
        assert place.temporary_names() == []


def test_what_somebody_edits_before_the_recovery_is_left_alone(torn_apart, tmp_path):
    place = torn_apart
    crash.kill_at("restore.begun", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    place.file("replaced", b"edited after the crash")
    report = place.recover()
    assert (place.path / "replaced").read_bytes() == b"edited after the crash"
    assert report.conflicts == (b"replaced",)
    assert dict(report.not_restored).keys() == {b"replaced"}
    assert report.root == place.checkpoint()
    assert (place.path / "stays").read_bytes() == b"stays"


def test_a_new_restore_finishes_the_killed_one_first(torn_apart, tmp_path, assert_same):
    place = torn_apart
    crash.kill_at("restore.renamed", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    place.restore(place.target)
    assert_same(place.wanted, place.facts())
    assert place.temporary_names() == []
    place.undo()
    assert_same(place.was, place.facts())


def test_a_killed_partial_restore_stays_in_its_paths(torn_apart, tmp_path):
    place = torn_apart
    arguments = _arguments(place, "replaced", "linked")
    crash.kill_at("restore.renamed", 1, CHILD, arguments, mark=tmp_path / "mark")
    place.recover()
    now = place.facts()
    inside = {b"replaced", b"linked", b"linked/one", b"linked/two"}
    for path in now:
        assert now[path] == (place.wanted if path in inside else place.was)[path]


def test_a_file_torn_by_a_power_cut_is_written_again(
    torn_apart, tmp_path, assert_same, monkeypatch
):
    place = torn_apart
    crash.kill_at("restore.committed", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    torn = place.path / "replaced"
    times = torn.stat()
    torn.write_bytes(b"")  # what delayed allocation leaves of it
    os.utime(torn, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr("crabrt.workspace.restoring.session.boot_id", lambda: "another boot")
    assert place.recover().verified
    assert_same(place.wanted, place.facts())


def test_a_dry_run_leaves_a_killed_restore_for_later(torn_apart, tmp_path):
    place = torn_apart
    crash.kill_at("restore.begun", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    place.restore(place.target, dry_run=True)
    assert RestoreLog(place.workspace.state_dir).interrupted() is not None


def test_what_an_interrupted_restore_needs_is_a_root(torn_apart, tmp_path):
    place = torn_apart
    crash.kill_at("restore.begun", 1, CHILD, _arguments(place), mark=tmp_path / "mark")
    log = RestoreLog(place.workspace.state_dir)
    begun = log.interrupted()
    assert log.roots(max_age_days=-1) == (begun.before, begun.target)
    place.recover()
    ended = log.records()[-1]
    assert isinstance(ended, End)
    assert log.last_end_root() == (ended.root, ended.wall_ns)
    assert DAY_NS == 86_400_000_000_000
