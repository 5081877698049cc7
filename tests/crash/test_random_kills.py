"""200 SIGKILLs at random moments of runs of 60 generated turns: no turn is lost, none is wrong.

A failure prints the seed of the life; ``random_kills.py`` leads it again.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("random_kills.py")
TURNS = 60
KILLS = 25
BATCHES = [(seed, "same") for seed in (1000, 2000, 3000, 4000, 5000)]
BATCHES += [(seed, "hostile") for seed in (6000, 7000, 8000)]


def test_the_batches_come_to_200_kills():
    assert len(BATCHES) * KILLS == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "generator"), BATCHES)
def test_killed_at_random_moments_no_turn_is_lost(seed, generator, tmp_path):
    command = [PROGRAM, tmp_path, seed, KILLS, TURNS, generator]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= KILLS
