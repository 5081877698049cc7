"""A dry run while a killed restore waits says what comes once that is finished: no dead end."""

import os
import shutil
from pathlib import Path

import pytest

from crabrt.errors import NotFound
from crabrt.journal.restores import RestoreLog
from crabrt.testing import crash

CHILD = Path(__file__).with_name("restoring_child.py")
SOME = ("closed", "d", "e", "kept", "linked")
MOMENTS = [
    ("restore.begun", 1),
    ("restore.temp_made", 3),
    ("restore.all_staged", 1),
    ("restore.deleted", 2),
    ("restore.renamed", 1),
    ("restore.renamed", 3),
    ("restore.linked", 1),
    ("restore.committed", 1),
    ("restore.settled", 1),
    ("restore.synced", 1),
]


@pytest.fixture
def apart(place):
    """A directory far from its `first` state and from its `last`; others are beside both."""
    for name in ("kept", "replaced", "d/one", "d/two", "d/three", "closed/in", "theirs", "e/f"):
        place.file(name, b"1")
    os.link(place.path / "kept", place.path / "linked")
    (place.path / "closed").chmod(0o500)
    place.first = place.checkpoint()
    (place.path / "closed").chmod(0o700)
    place.file("replaced", b"2" * 50)
    place.file("d/one", b"2")
    place.file("d/two", b"2")
    (place.path / "linked").unlink()
    place.file("linked", b"2")
    place.file("closed/in", b"2")
    shutil.rmtree(place.path / "e")
    place.file("e", b"2")
    (place.path / "d/three").unlink()
    place.file("d/three/in", b"2")
    place.file("added/by/an/agent", b"2")
    (place.path / "closed").chmod(0o500)
    place.last = place.checkpoint()
    return place


def kill(place, tmp_path, moment, *scope):
    point, hit = moment
    arguments = [place.path, place.home, place.first.hex(), *scope]
    assert crash.kill_at(point, hit, CHILD, arguments, mark=tmp_path / "mark").killed
    assert RestoreLog(place.workspace.state_dir).interrupted() is not None


def looks(place):
    """What dry runs say, as it is compared: of an undo, and of restores to both states."""
    log = RestoreLog(place.workspace.state_dir)
    ended = log.last_end()
    base = place.last if ended is None else ended.base
    found = [place.undo(dry_run=True)]
    for target, paths in ((place.first, ()), (place.last, ()), (place.first, [b"d"])):
        found.append(place.restore(target, paths=paths, base=base, dry_run=True))
    return [(one.preview, one.changes, one.conflicts) for one in found]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("scope", [(), SOME], ids=["all", "paths"])
def test_a_dry_run_is_what_it_is_once_the_killed_restore_is_finished(
    apart, tmp_path, moment, scope, assert_same
):
    place = apart
    kill(place, tmp_path, moment, *scope)
    before = place.facts()
    foreseen = looks(place)
    assert place.undo(dry_run=True).finishes
    assert_same(before, place.facts())
    assert RestoreLog(place.workspace.state_dir).interrupted() is not None
    place.recover()
    assert foreseen == looks(place)
    assert place.undo(expect=foreseen[0][0]).complete


def test_what_somebody_changed_since_the_kill_is_told_as_theirs(apart, tmp_path):
    place = apart
    kill(place, tmp_path, ("restore.renamed", 2))
    for name in ("replaced", "theirs", "d/one", "added/by/hand"):
        place.file(name, b"by hand")
    foreseen = looks(place)
    assert {b"replaced", b"d/one"} <= set(foreseen[0][2])
    place.recover()
    assert [one[1:] for one in foreseen] == [one[1:] for one in looks(place)]


def test_the_dry_run_of_an_undo_is_as_old_as_its_restore(apart, tmp_path):
    place = apart
    kill(place, tmp_path, ("restore.renamed", 1))
    with pytest.raises(NotFound):
        place.undo(dry_run=True, max_age_days=0)
    assert place.undo(dry_run=True).conflicts == ()
