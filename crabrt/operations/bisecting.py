"""The turn that broke it: states restored beside the workspace, a command run in each, halving.

The convention for exit codes is git's: 0 good, 125 cannot be tested, 1-124 bad, anything else stops
the search. Turns that share a state are tested once. The workspace itself is never touched.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from crabrt.core.ports import ObjectReader
from crabrt.errors import CrabError, UsageError
from crabrt.operations.targets import State
from crabrt.workspace.restoring import restore_to

_SKIP_CODE = 125


class Trial(StrEnum):
    """What the command said of a state."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(frozen=True)
class Tried:
    """One state that was tested: its turn, what came out, and the command's exit code."""

    turn: int
    trial: Trial
    exit_code: int


@dataclass(frozen=True)
class Finding:
    """The end of a search.

    Attributes:
        first_bad: the first bad turn, or None when even the last one is good.
        last_good: the last good turn before it, or None when even the first one is bad.
        suspects: more than one turn when skipped ones hide which was the first; else just it.
        tried: every test, in the order they were made.
    """

    first_bad: int | None
    last_good: int | None
    suspects: tuple[int, ...]
    tried: tuple[Tried, ...]


def bisect(
    reader: ObjectReader,
    states: Sequence[State],
    command: Sequence[str],
    *,
    output: IO[bytes] | int = subprocess.DEVNULL,
    told: Callable[[Tried, int], None] | None = None,
    workdir: Path | None = None,
) -> Finding:
    """Find the first of `states` (in turn order) in which `command` fails.

    Args:
        reader: the store.
        states: the candidates.
        command: program and arguments; runs in the restored directory, stdin closed.
        output: where the command's output goes.
        told: called after each test with how many different states there are.
        workdir: where temporary directories are made; the system's choice by default.

    Raises:
        UsageError: the command cannot be run, or stopped the search.
        NotFound: there are no states.
    """
    candidates = distinct_states(states)
    tried: dict[int, Tried] = {}

    def test(place: int) -> Trial:
        state = candidates[place]
        if state.turn not in tried:
            tried[state.turn] = _try_state(reader, state, command, output, workdir)
            if told is not None:
                told(tried[state.turn], len(candidates))
        return tried[state.turn].trial

    good, bad, skipped = search(len(candidates), test)
    if bad is None:
        return Finding(None, candidates[-1].turn, (), tuple(tried.values()))
    hidden = [candidates[i].turn for i in sorted(skipped) if (good or 0) <= i < bad]
    return Finding(
        first_bad=candidates[bad].turn,
        last_good=None if good is None else candidates[good].turn,
        suspects=(*hidden, candidates[bad].turn),
        tried=tuple(tried.values()),
    )


def distinct_states(states: Sequence[State]) -> list[State]:
    """The first of every stretch of turns that share a state."""
    return [state for i, state in enumerate(states) if i == 0 or states[i - 1].root != state.root]


def search(count: int, test: Callable[[int], Trial]) -> tuple[int | None, int | None, set[int]]:
    """Halve ``range(count)``: (last good, first bad, skipped) places.

    The first and last place are tested first: a search between ends that do not differ finds
    nothing, and should say so. Skipped places are stepped round, nearest to the middle first.
    """
    if count == 0:
        return None, None, set()
    skipped: set[int] = set()
    last = _first_answer(range(count - 1, -1, -1), test, skipped)
    if last is None or last[1] is Trial.GOOD:
        return (None if last is None else last[0]), None, skipped
    first = _first_answer(range(last[0] + 1), test, skipped)
    assert first is not None  # the last place was tested and is not skipped
    if first[1] is Trial.BAD:
        return None, first[0], skipped
    good, bad = first[0], last[0]
    while between := [place for place in range(good + 1, bad) if place not in skipped]:
        place = between[len(between) // 2]
        trial = test(place)
        if trial is Trial.SKIP:
            skipped.add(place)
        elif trial is Trial.GOOD:
            good = place
        else:
            bad = place
    return good, bad, skipped


def _first_answer(
    places: Sequence[int], test: Callable[[int], Trial], skipped: set[int]
) -> tuple[int, Trial] | None:
    """The first of `places` that can be tested, and what came out; those that cannot are noted."""
    for place in places:
        trial = test(place)
        if trial is not Trial.SKIP:
            return place, trial
        skipped.add(place)
    return None


def _try_state(
    reader: ObjectReader,
    state: State,
    command: Sequence[str],
    output: IO[bytes] | int,
    workdir: Path | None,
) -> Tried:
    with tempfile.TemporaryDirectory(
        prefix=f"crab-bisect-{state.turn}-", dir=workdir, ignore_cleanup_errors=True
    ) as parent:
        directory = Path(parent) / "workspace"
        restore_to(reader, state.root, directory)
        try:
            done = subprocess.run(
                list(command),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        except OSError as error:
            raise UsageError(
                f"the command cannot be run: {error.strerror}", where=str(command[0])
            ) from error
    code = done.returncode
    if code == 0:
        return Tried(state.turn, Trial.GOOD, code)
    if code == _SKIP_CODE:
        return Tried(state.turn, Trial.SKIP, code)
    if 0 < code < _SKIP_CODE:
        return Tried(state.turn, Trial.BAD, code)
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    raise CrabError(
        f"the command {how}: that is neither good nor bad",
        where=f"turn {state.turn}",
        hint="exit 0 for good, 1-124 for bad, 125 for a turn that cannot be tested",
    )
