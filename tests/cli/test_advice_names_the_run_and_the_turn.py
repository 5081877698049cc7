"""What `crab log` and `crab status` advise can be typed as it is, and does what it says."""

from __future__ import annotations

import pytest

from crabrt.core.entries import Captured, Checkpoint, Ended, Noted, TurnOpened
from crabrt.core.verdicts import Protection
from crabrt.journal import read_journal
from crabrt.journal.views import MISSING
from crabrt.runtime.recovery import GAP, find_stop


def a_turn_behind_a_gap(run):
    """The store could not be written for a while; the turn behind that has a checkpoint again."""
    run.turns += 1
    number, say = run.turns, run.journal.append
    say(TurnOpened(number, number - 1), turn=number)
    say(Noted(MISSING, f"not recorded: an intent of turn {number}: no space"), turn=number)
    say(Captured(number, 0, run.root, run.journal.seq), turn=number)
    position = run.journal.seq
    say(Checkpoint(number, 0, run.root, position, Protection.DURABLE), turn=number)
    run.journal.sync()


@pytest.fixture
def made(builder, home, workspace):
    workspace.mkdir(exist_ok=True)
    return builder.RunBuilder(home, workspace)


@pytest.fixture
def gapped(made):
    made.turn()
    made.turn()
    a_turn_behind_a_gap(made)
    made.journal.append(Ended("failed", 1.0), turn=made.turns)
    made.close()
    stop = find_stop(read_journal(made.directory))
    assert stop.buried_gap  # a resume of the run itself is refused
    assert stop.unburied.name == "2"
    return made


@pytest.mark.parametrize("verb", ["status", "log"])
def test_a_run_with_missing_entries_is_taken_up_before_them(crab, gapped, verb):
    words = [gapped.run] if verb == "log" else []
    *_, why, how = crab(verb, *words).out.splitlines()
    assert why == "Entries are missing behind turn 2, as the store could not be written."
    assert how == f"Take it up from there: crab resume {gapped.run}@2"


def test_without_a_checkpoint_before_them_there_is_nothing_to_take_up(
    crab, builder, home, workspace
):
    class Run(builder.RunBuilder):
        def checkpoint(self, _):
            """The store could not be written from the beginning on."""
            self.root = self.tracker.capture(self.tracker.scan(), self.writer).root

    workspace.mkdir(exist_ok=True)
    run = Run(home, workspace)
    a_turn_behind_a_gap(run)
    run.end("failed")
    assert "crab resume" not in crab("log", run.run).out
    assert "it cannot be taken up again, start it anew" in crab("status").out


def test_a_gap_that_hides_no_checkpoint_changes_nothing(crab, made):
    made.turn()
    made.journal.append(Noted(MISSING, "not recorded: an intent of turn 1: no space"), turn=1)
    made.close()
    assert crab("log", made.run).out.splitlines()[-1] == f"Take it up again: crab resume {made.run}"


def test_the_note_is_the_one_that_a_resume_reads():
    assert MISSING == GAP


def test_lines_that_are_left_out_name_a_turn_that_has_some(crab, made):
    for number in range(1, 12):
        made.unprotected_turn(f"reason {number}")
    made.end()
    (line,) = [one for one in crab("log", made.run).out.splitlines() if one.startswith("...")]
    assert line == f"... and 3 more of the turns up to 3 (crab show {made.run}@3)"
    assert "reason 3" in crab("show", f"{made.run}@3").out
