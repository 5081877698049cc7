"""Lives that are ended at random moments: ``random_kills.py PLACE SEED KILLS TURNS GENERATOR``.

This process only forks, waits and kills: the loop, and what is asked of its store, run in forked
children, so that nothing of one life reaches the next and none pays for starting an interpreter.
Prints a line a life; ends with 0 when nothing was lost.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from after_death import (
    Diary,
    assert_clean,
    assert_turns_come_back,
    unprotected,
)
from loop import Life, lead, prepare

from crabrt.errors import NotFound, NotResumable
from crabrt.testing.hostile import HostileRun
from crabrt.testing.hostile.hand import OPERATIONS
from crabrt.testing.oracle import digest

for uncaptured in ("make a socket", "make a device"):
    # A directory that holds one survives a rollback, so lives that were restored at other moments
    # would differ by it, and rightly.
    del OPERATIONS[uncaptured]

LONGEST_S = 0.6
ROLLBACK, LABEL = 20, 10


@dataclass(frozen=True)
class HostileLife(Life):
    """Turns by the hostile generator. Times come from the clock; all else is the same again."""

    keeps_time = False

    def act(self, number, part):
        with HostileRun(self.seed, self.workspace, outside=f"{self.workspace}.outside") as run:
            run.turns = number * 10 + part  # a resumed life goes on where it was
            return str(run.turn())


def forked(body):
    """Start `body` in a child with a process group of its own."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended_within(pid, seconds):
    """The child's status, or None if it is still alive after so long."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        left = until - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left)


def asked(body):
    """Run `body` in a child to its end; whether it held."""
    return os.waitpid(forked(body), 0)[1] == 0


def live_on(life):
    """Begin the run, or take it up."""
    if not (life.home / "runs").exists():
        lead(life)
        return
    try:
        lead(life, resume=True)
    except (NotFound, NotResumable):
        if life.diary.exists() and Diary(life).passed >= 0:
            raise
        lead(life)


def look_after_a_kill(life):
    if (life.home / "format.json").exists():
        assert_clean(life)
    diary = Diary(life)
    assert diary.again == []
    if diary.passed >= 0:
        newest = max(turn for turn in diary.protected)
        assert_turns_come_back(life, {newest: diary.protected[newest]})


def look_at_the_end(life, twin):
    diary = Diary(life)
    assert diary.again == []
    assert set(diary.digests) == set(range(life.turns + 1))
    assert unprotected(life) == []
    assert_turns_come_back(life, diary.protected)
    assert_clean(life)
    assert digest(life.workspace) == diary.digests[life.turns]
    if twin is not None:
        assert diary.timeless == twin.timeless
        if life.keeps_time:
            assert diary.digests == twin.digests


def one_life(place, seed, kills, turns, kind, twin):
    """Lead one life through up to `kills` deaths; how many it had."""
    place.mkdir()
    life = kind(
        place / "ws", place / "home", seed, turns, rollback=ROLLBACK, label=LABEL, wait_s=0.001
    )
    if not asked(lambda: prepare(life)):
        raise SystemExit(f"seed {seed}: could not be prepared")
    rng = random.Random(seed * 1_000 + turns)
    died = 0
    while True:
        child = forked(lambda: live_on(life))
        left = rng.random() * LONGEST_S if died < kills else 120.0
        status = ended_within(child, left)
        if status is None and died == kills:
            raise SystemExit(f"seed {seed}: hangs after {died} kills, in {place}")
        if status is not None and not os.WIFSIGNALED(status):
            if status != 0:
                raise SystemExit(f"seed {seed}: failed after {died} kills, in {place}")
            break
        if status is None:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            died += 1
        if not asked(lambda: look_after_a_kill(life)):
            raise SystemExit(f"seed {seed}: harmed by kill {died}, in {place}")
    if not asked(lambda: look_at_the_end(life, twin)):
        raise SystemExit(f"seed {seed}: harmed at its end, after {died} kills, in {place}")
    return died


def undisturbed(place, seed, turns, kind):
    """What an undisturbed life writes down."""
    path = place / f"twin-{seed}"
    one_life(path, seed, 0, turns, kind, None)
    return Diary(kind(path / "ws", path / "home", seed, turns))


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(place, seed, kills, turns, kind):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    left, lives = kills, 0
    while left > 0:
        this = seed + lives
        started = time.monotonic()
        twin = undisturbed(place, this, turns, kind)
        died = one_life(place / f"life-{this}", this, left, turns, kind, twin)
        left -= died
        lives += 1
        spent_s = time.monotonic() - started
        say(f"seed {this}: {died} kills, {turns} turns, {spent_s:.1f} s")
    say(json.dumps({"kills": kills - left, "lives": lives}))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        {"same": Life, "hostile": HostileLife}[sys.argv[5]],
    )
