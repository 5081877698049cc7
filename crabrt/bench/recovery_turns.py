"""Every turn of a run that has ended is restored, in random order, and its processes are asked."""

from __future__ import annotations

import json
import random
import sys
import time

from crabrt.bench.kept import Unit
from crabrt.bench.recovery_judging import MODES, Expected, last_run, lists_differ
from crabrt.bench.recovery_rig import Ended, Rig
from crabrt.testing.tasks.digesting import digest

_TAIL = 400


def restore_turns(rig: Rig, expected: Expected, rng: random.Random, most: int) -> Unit:
    """Restore so many turns at most of the run in `rig`.

    ``turns``: which, in that order; ``took_ms``: each restore, as a command; ``wrong``: what
    differed.
    """
    turns = rng.sample(range(len(expected.digests)), min(most, len(expected.digests)))
    run = last_run(rig.home)
    found: Unit = {"turns": turns, "took_ms": [], "wrong": []}
    for turn in turns:
        began = time.monotonic()
        command = [sys.executable, "-m", "crabrt", "restore", f"{run}@{turn}", "--force", "--json"]
        done = rig.finish(rig.start(command))
        found["took_ms"].append(round((time.monotonic() - began) * 1e3, 1))
        if done.status:
            found["wrong"].append(f"turn {turn}: exit {done.status}: {_why(done)}")
        found["wrong"] += [f"turn {turn}: {text}" for text in _asked(rig, expected, turn, str(run))]
    return found


def _why(done: Ended) -> str:
    """What a restore did not bring back, as it says itself."""
    try:
        told = json.loads(done.output)
        said, error = told["data"], told["error"]
    except (ValueError, KeyError):
        return done.errors.strip()[-_TAIL:]
    if said is None:
        return str(error)[:_TAIL]
    lists = ("processes_not_restored", "not_restored", "held_open", "own_code")
    return str({name: said[name] for name in lists if said.get(name)})[:_TAIL]


def _asked(rig: Rig, expected: Expected, turn: int, run: str) -> list[str]:
    wrong = []
    if digest(rig.task, rig.workspace) != expected.digests[turn]:
        wrong.append("the files are others")
    asking = rig.agent("ask", "--target", f"{run}@{turn}", env=MODES["files"])
    ended = rig.finish(asking)
    if ended.status != 0:
        return [*wrong, f"asking ended with {ended.status}: {ended.errors[-_TAIL:]}"]
    return [*wrong, *lists_differ("answer", expected.answers[turn], ended.result("asking"))]
