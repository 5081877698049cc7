"""Every hostile operation on every file system: what the oracle sees change, the watch told."""

import pytest

from crabrt.testing.hostile import GROUNDWORK, OPERATIONS, HostileRun, NotApplicable
from crabrt.testing.hostile.hand import Unsupported

pytestmark = pytest.mark.root

TRIES = 300
TURNS = 60
STORES = {
    "a store through a kept mapping",
    "a store through a kept mapping, and back",
    "a store through a kept mapping that is read-only at once after",
}
"""The exception: the kernel reports no store through a mapping until it is gone. Of these the
watch tells by naming the file as held."""


class Exhausted(Exception):
    """The tree has nothing left to do it to."""


def do(run, name):
    """Do it once; the choices are random, so an unlucky one is drawn again."""
    for _ in range(TRIES):
        try:
            return run.do(name)
        except Unsupported:
            raise
        except NotApplicable:
            continue
    raise Exhausted(name)


def judge(step, what, *, stores):
    untold = step.untold()
    assert stores or not untold, f"not told of {what}: {sorted(untold)[:5]} by {step.dirty}"
    assert untold <= step.held(), f"neither told nor held: {what}: {sorted(untold)[:5]}"


class Stage:
    """A tree with something for every operation, made anew when one finds nothing."""

    def __init__(self, make):
        self._make = make
        self._run = None
        self.renew()

    def renew(self):
        self.close()
        self.place = self._make()
        self._run = HostileRun(1, self.place.root, outside=self.place.outside)
        for name in GROUNDWORK:
            do(self._run, name)
        self.watch = self.place.open()

    def during(self, name):
        try:
            return self.place.during(self.watch, lambda: do(self._run, name))
        except Exhausted:
            self.renew()
        if name == "make a tree deeper than PATH_MAX":
            do(self._run, "remove a tree deeper than PATH_MAX")
        return self.place.during(self.watch, lambda: do(self._run, name))

    def close(self):
        if self._run is not None:
            self._run.close()
            self.place.close()


@pytest.fixture(scope="module")
def stage(make_watched):
    made = Stage(make_watched)
    yield made
    made.close()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_an_operation_changes_is_told(name, stage):
    undone = OPERATIONS[name].undone
    changes = 0
    for done in range(20):
        try:
            step = stage.during(name)
        except Unsupported as error:
            pytest.skip(f"file system: {error}")
        judge(step, name, stores=name in STORES)
        changes += bool(step.changed)
        if (undone or changes) and done:
            break
    assert undone or changes, "it was done, and changed nothing"


@pytest.mark.parametrize("seed", [3, 4])
def test_what_turns_change_is_told(seed, on_volume):
    changes = unknown = 0
    with HostileRun(seed, on_volume.root, outside=on_volume.outside) as run:
        watch = on_volume.open()
        for _ in range(TURNS):
            turns = []
            step = on_volume.during(watch, lambda turns=turns: turns.append(run.turn()))
            stores = any(one.operation in STORES for one in turns[0].steps)
            judge(step, str(turns[0]), stores=stores)
            changes += bool(step.changed)
            unknown += step.dirty.unknown is not None
    assert changes > TURNS / 2
    assert unknown == 0
