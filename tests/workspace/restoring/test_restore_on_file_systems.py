"""States of hostile turns come back on every file system, in place and elsewhere, in any order."""

import random

import pytest

from crabrt.testing.filesystems import file_system
from crabrt.testing.hostile import HostileRun

TURNS = 12


@pytest.fixture(params=["tmpfs", "xfs", "btrfs", "ext4", "overlay", "fuse"], scope="module")
def volume(request):
    with file_system(request.param) as path:
        yield path


@pytest.mark.root
@pytest.mark.parametrize("seed", [1, 2])
def test_every_state_comes_back_in_any_order(volume, seed, place_at, assert_same):
    top = volume / f"seed-{seed}"
    place = place_at(top)
    states = []
    with HostileRun(seed, place.path, outside=top / "outside") as run:
        for _ in range(TURNS):
            run.turn()
            states.append((place.checkpoint(), place.facts()))
    order = [*range(TURNS)]
    random.Random(seed).shuffle(order)
    for number in order:
        root, facts = states[number]
        report = place.restore(root)
        # A directory stays, and is told, if something is in it that is not captured: a device.
        left = {path for path, _ in report.not_restored}
        now = {path: fact for path, fact in place.facts().items() if path not in left}
        assert_same(now, {path: fact for path, fact in facts.items() if path not in left})
        stayed = left & place.facts().keys() - facts.keys()
        assert stayed or place.checkpoint() == root
    for number in order[:3]:
        root, facts = states[number]
        place.restore_to(root, top / f"elsewhere-{number}")
        assert_same(place.facts(top / f"elsewhere-{number}"), facts)


@pytest.mark.root
def test_a_restore_is_undone_and_its_undo_too(volume, place_at, assert_same):
    top = volume / "undo"
    place = place_at(top)
    with HostileRun(3, place.path, outside=top / "outside") as run:
        run.turn()
        first, before = place.checkpoint(), place.facts()
        for _ in range(3):
            run.turn()
    place.checkpoint()
    after = place.facts()
    place.restore(first)
    assert_same(place.facts(), before)
    place.undo()
    assert_same(place.facts(), after)
    place.undo()
    assert_same(place.facts(), before)
