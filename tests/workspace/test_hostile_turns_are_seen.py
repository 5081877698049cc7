"""Scan and capture against the oracle: hostile turns, every operation, every file system."""

import pytest

from crabrt.testing import oracle
from crabrt.testing.hostile import HostileRun

TURNS = 40


def test_every_turn_is_captured_exactly(on_volume):
    tracked = on_volume
    with HostileRun(7, tracked.root, outside=tracked.base / "outside") as run:
        tracked.capture()
        before = oracle.digest(tracked.root)
        for _ in range(TURNS):
            turn = run.turn()
            after = oracle.digest(tracked.root)
            scan = tracked.tracker.scan()
            assert not (scan.clean and after != before), f"false clean: {turn}"
            previous = tracked.tracker.root
            tracked.capture()
            assert (tracked.tracker.root == previous) == (after == before), str(turn)
            tracked.agrees()
            before = after


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_long_runs_never_give_a_false_clean(on_volume, seed):
    tracked = on_volume
    with HostileRun(seed, tracked.root, outside=tracked.base / "outside") as run:
        tracked.capture()
        before = oracle.digest(tracked.root)
        for _ in range(150):
            turn = run.turn()
            after = oracle.digest(tracked.root)
            scan = tracked.tracker.scan()
            if scan.clean:
                assert after == before, f"false clean: {turn}"
                continue
            previous = tracked.tracker.root
            tracked.tracker.capture(scan, tracked.objects)
            assert (tracked.tracker.root == previous) == (after == before), str(turn)
            before = after
