"""Known after a restore: what was known, with what the restore brought; nobody's edits."""

import os
import shutil
import time

import pytest

from crabrt.core import failpoints
from crabrt.errors import DamagedObject, WouldLoseChanges
from crabrt.journal.restores import Begin, RestoreLog
from crabrt.workspace import diff_roots, read_root, read_tree
from crabrt.workspace.restoring.edited import put_edited
from crabrt.workspace.restoring.known import known_after


def log_of(place):
    return RestoreLog(place.workspace.state_dir)


def base_of(place):
    return log_of(place).last_end().base


def unlike(place, one, two):
    return [change.path for change in diff_roots(place.store, one, two)]


def theirs(place):
    """What differs from what is known."""
    return unlike(place, base_of(place), place.checkpoint())


def test_a_whole_restore_leaves_what_it_was_to_leave(place):
    place.file("f", b"1")
    target = place.checkpoint()
    place.file("f", b"2")
    place.restore(target, base=place.checkpoint())
    assert log_of(place).last_end().known is None
    assert base_of(place) == target


def test_only_the_restored_paths_become_known(place):
    for name in ("a", "b", "d/a", "d/e/f"):
        place.file(name, b"1")
    target = place.checkpoint()
    for name in ("a", "b", "d/a", "d/e/f"):
        place.file(name, b"2")
    base = place.checkpoint()
    place.file("a", b"theirs")
    place.file("d/e/new", b"theirs")
    shutil.rmtree(place.path / "d/e")
    place.file("d/new/deep", b"theirs")
    (place.path / "b").chmod(0o600)
    place.restore(target, base=base, paths=[b"d/a"])
    assert unlike(place, base, base_of(place)) == [b"d/a"]
    assert theirs(place) == [b"a", b"b", b"d/e", b"d/e/f", b"d/new", b"d/new/deep"]


def test_a_directory_that_comes_back_for_a_path_is_known(place):
    place.file("d/e/f", b"1", 0o600)
    place.file("d/e/g", b"1")
    target = place.checkpoint()
    shutil.rmtree(place.path / "d")
    base = place.checkpoint()
    place.restore(target, base=base, paths=[b"d/e/f"])
    assert theirs(place) == []
    place.undo()
    assert (place.path / "d/e/f").exists() is False


def test_directories_and_files_that_change_places_are_known(place):
    place.file("x/in", b"1")
    place.file("y", b"1")
    target = place.checkpoint()
    shutil.rmtree(place.path / "x")
    (place.path / "y").unlink()
    place.file("x", b"2")
    place.file("y/in", b"2")
    place.file("other", b"2")
    base = place.checkpoint()
    place.restore(target, base=base, paths=[b"x", b"y"])
    assert theirs(place) == []
    assert read_root(place.store, base_of(place)) == read_root(place.store, place.checkpoint())


def test_the_mode_of_the_workspace_itself_is_known(place):
    place.file("f")
    place.path.chmod(0o755)
    target = place.checkpoint()
    place.path.chmod(0o700)
    base = place.checkpoint()
    place.file("mine")
    place.restore(target, base=base, force=True)
    place.undo()
    assert theirs(place) == [b"mine"]


def test_hard_links_of_what_was_restored_and_of_the_rest_are_known(place):
    os.link(place.file("in/a", b"1"), place.path / "in/b")
    os.link(place.file("c", b"1"), place.path / "d")
    os.link(place.file("in/kept", b"1"), place.path / "kept")
    target = place.checkpoint()
    (place.path / "in/b").unlink()
    place.file("in/b", b"2")
    place.file("c", b"2")
    os.link(place.path / "c", place.path / "in/c")
    base = place.checkpoint()
    place.restore(target, base=base, paths=[b"in"])
    assert theirs(place) == []
    os.link(place.path / "d", place.path / "mine")
    assert theirs(place) == [b"c", b"d", b"mine"]


def test_nothing_known_before_means_what_was_there_is_known(place):
    place.file("a", b"1")
    place.file("b", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    place.file("b", b"2")
    place.restore(target, paths=[b"a"])
    assert theirs(place) == []
    place.file("b", b"theirs")
    assert theirs(place) == [b"b"]


def test_what_appeared_in_the_way_of_a_restore_stays_somebodys(place):
    place.file("f", b"1")
    place.file("g", b"1")
    target = place.checkpoint()
    place.file("f", b"2")
    place.file("g", b"2")
    base = place.checkpoint()
    point = failpoints.ALL["restore.all_staged"]
    point.action = lambda: place.file("f", b"theirs")
    try:
        report = place.restore(target, base=base)
    finally:
        point.action = None
    assert dict(report.not_restored).keys() == {b"f"}
    assert unlike(place, base_of(place), place.checkpoint()) == [b"f"]
    with pytest.raises(WouldLoseChanges) as refused:
        place.restore(target, base=base_of(place))
    assert refused.value.paths == [b"f"]


def test_metadata_that_could_not_be_set_is_nobodys_work(place):
    """As if the file's owner could not be had: an ordinary user's restore of root's file."""
    place.file("f", b"1")
    place.file("g", b"1")
    target = place.checkpoint()
    place.file("f", b"2")
    base = place.checkpoint()
    place.file("f", b"1", 0o600)
    os.utime(place.path / "f", ns=(1, 1))
    begun = Begin("0" * 16, base, target, base, (), False, "", 0, "")
    known = known_after(place.writer, begun, place.checkpoint())
    assert unlike(place, known, place.checkpoint()) == []
    place.file("f", b"theirs")
    known = known_after(place.writer, begun, place.checkpoint())
    assert unlike(place, known, place.checkpoint()) == [b"f"]


def test_a_killed_partial_restore_that_is_finished_later_knows_as_much(place):
    place.file("a", b"1")
    place.file("b", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    place.file("b", b"2")
    base = place.checkpoint()
    place.file("b", b"theirs")
    before = place.checkpoint()
    log_of(place).append(Begin("0" * 16, before, target, base, (b"a",), False, "", 0, ""))
    place.recover()
    assert theirs(place) == [b"b"]


def test_a_killed_undo_that_is_finished_later_knows_as_much(place):
    place.file("a", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    base = place.checkpoint()
    place.file("a", b"theirs")
    place.restore(target, base=base, force=True)
    begun, ended = log_of(place).undo_point(1)
    log_of(place).append(
        Begin("0" * 16, target, begun.before, ended.base, (), False, "undo", 0, "", known=base)
    )
    assert base in log_of(place).roots(max_age_days=0)
    place.recover()
    assert (place.path / "a").read_bytes() == b"theirs"
    assert theirs(place) == [b"a"]


def test_a_restore_given_up_half_way_knows_what_it_did(place):
    for name in ("a", "b", "c"):
        place.file(name, os.urandom(2000))
    target = place.checkpoint()
    wanted = {name: (place.path / name).read_bytes() for name in "abc"}
    for name in ("a", "b", "c"):
        place.file(name, b"2")
    base = place.checkpoint()
    now = time.time_ns()
    log_of(place).append(Begin("0" * 16, base, target, base, (), False, "", now, ""))
    place.restore_to(target, place.top / "elsewhere")
    shutil.copy2(place.top / "elsewhere/a", place.path / "a")  # the kill came behind the first
    place.file("c", b"theirs")
    for pack in (place.home / "packs").rglob("*.pack"):
        hurt = bytearray(pack.read_bytes())
        at = hurt.find(wanted["b"][:64])
        if at >= 0:
            hurt[at] ^= 1
            pack.write_bytes(hurt)
    with pytest.raises(DamagedObject):
        place.recover()
    with pytest.raises(WouldLoseChanges) as refused:
        place.undo()
    assert refused.value.paths == [b"c"]
    assert theirs(place) == [b"c"]


def test_a_base_that_is_not_whole_keeps_no_forced_restore_from_ending(place):
    place.file("a", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    lost = bytes(32)
    place.restore(target, base=lost, paths=[b"a"], force=True)
    assert log_of(place).interrupted() is None
    assert base_of(place) == place.checkpoint()


def test_an_edited_state_is_the_one_that_a_capture_of_it_makes(place):
    """A directory of many nodes, deep ones, ones that come and go: ids and sums are the same."""
    for n in range(200):
        place.file(f"wide/{n:03}", b"1" * n)
    place.file("/".join("d" * 60) + "/deep", b"1")
    place.file("gone/in/f", b"1")
    one = place.checkpoint()
    for n in range(0, 200, 7):
        (place.path / f"wide/{n:03}").unlink()
    place.file("wide/0005", b"new")
    place.file("/".join("d" * 60) + "/deep", b"2")
    shutil.rmtree(place.path / "gone")
    (place.path / "new/empty").mkdir(parents=True)
    two = place.checkpoint()
    edits = {change.path: change.after for change in diff_roots(place.store, one, two)}
    assert put_edited(place.writer, one, edits, ()) == two
    back = {change.path: change.after for change in diff_roots(place.store, two, one)}
    assert put_edited(place.writer, two, back, ()) == one
    everything = dict(read_tree(place.store, two))
    assert put_edited(place.writer, two, everything, ()) == two
