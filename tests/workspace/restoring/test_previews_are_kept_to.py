"""A restore that expects what a preview listed does that, or nothing: files, and processes."""

import pytest

from crabrt.core.ids import object_id
from crabrt.errors import PreviewOutdated
from crabrt.journal.restores import RestoreLog
from crabrt.workspace.restoring import Beside

FIRST, SECOND = (100, 5_000), (200, 6_000)


def beside(*tops, target=None, before=None, theirs=()):
    begun = []
    return Beside(before, target, begun.append, frozenset(), frozenset(theirs), tops)


@pytest.fixture
def target(place):
    place.file("a", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    return target


def test_other_processes_are_something_else(place, target):
    alive, other = object_id(b"alive"), object_id(b"other")
    variants = [
        None, beside(), beside(FIRST), beside(FIRST, SECOND), beside(SECOND),
        beside(FIRST, target=alive), beside(FIRST, target=other),
    ]  # fmt: skip
    ids = [place.restore(target, dry_run=True, beside=one).preview for one in variants]
    assert len(set(ids)) == len(variants)
    again = place.restore(target, dry_run=True, beside=beside(SECOND, FIRST)).preview
    assert again == ids[3]
    with pytest.raises(PreviewOutdated):
        place.restore(target, beside=beside(SECOND), expect=ids[2])
    assert (place.path / "a").read_bytes() == b"2"
    assert RestoreLog(place.workspace.state_dir).records() == []


def test_the_same_processes_may_have_another_image_and_go_on_writing(place, target):
    base = place.checkpoint()
    log = place.file("log", b"0")
    planned = beside(FIRST, theirs=[b"log"])
    seen = place.restore(target, base=base, dry_run=True, beside=planned)
    assert seen.conflicts == ()
    log.write_bytes(b"0 1 2 3")
    image = place.checkpoint()
    real = beside(FIRST, before=image, theirs=[b"log"])
    done = place.restore(target, base=base, beside=real, expect=seen.preview)
    assert done.verified
    assert not log.exists()


def test_a_restore_and_its_undo_are_different_things(place, target):
    seen = place.restore(target, dry_run=True).preview
    done = place.restore(target, expect=seen)
    assert done.preview == seen
    with pytest.raises(PreviewOutdated):
        place.undo(expect=seen)
    assert (place.path / "a").read_bytes() == b"1"
    place.undo(expect=place.undo(dry_run=True).preview)
    assert (place.path / "a").read_bytes() == b"2"
