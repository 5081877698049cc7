"""Between a crash and the resume nobody worked: no turn took that long."""

from __future__ import annotations

import pytest

from crabrt.core.clock import Moment
from crabrt.core.entries import Forked, Lineage, Noted, Resumed, TurnOpened
from crabrt.journal import RunIndex, RunView, fold, fork_journal, read_journal
from crabrt.timeline.rows import rows_of

SECOND = 10**9


class Clock:
    """Says what it is told, in seconds of both clocks."""

    def __init__(self):
        self.seconds = 1000

    def now(self):
        return Moment(self.seconds * SECOND, self.seconds * SECOND)


@pytest.fixture
def clock():
    return Clock()


def at(clock, seconds, append, body, turn):
    clock.seconds = 1000 + seconds
    append(body, turn=turn)


def durations(run):
    with RunIndex.open(run.home) as index:
        index.refresh()
        row = index.run(run.id)
        return [one.took_ms for one in rows_of(row.view, index.turns(run.id), live=False)]


def killed(run):
    run.journal._close_file()
    run.lease.release()


def test_the_time_between_a_crash_and_the_resume_is_not_the_turns(run, clock):
    run.open(clock=clock)
    run.start()
    at(clock, 2, run.journal.append, TurnOpened(1, 0), 1)
    at(clock, 12, run.journal.append, Noted("t", "the last word"), 1)
    killed(run)
    clock.seconds = 1000 + 5000
    run.open(clock=clock)
    at(clock, 5001, run.journal.append, Resumed("in-place", 1, 1, 1), 1)
    at(clock, 5004, run.journal.append, TurnOpened(2, 1), 2)
    at(clock, 5006, run.journal.append, Noted("t", "x"), 2)
    assert durations(run) == [2000.0, 13_000.0, 2000.0]


def test_it_is_the_same_however_often_the_run_was_looked_at(run, clock):
    with RunIndex.open(run.home) as index:
        for owner in range(4):
            clock.seconds = 1000 * owner
            run.open(clock=clock)
            if owner == 0:
                run.start()
            index.refresh()
            at(clock, 1000 * owner + 3, run.journal.append, TurnOpened(owner + 1, owner), owner + 1)
            index.refresh()
            at(clock, 1000 * owner + 7, run.journal.append, Noted("t", "x"), owner + 1)
            killed(run)
        index.refresh()
        kept = index.run(run.id).view
    assert kept == fold(read_journal(run.directory)).run
    assert len(kept.gaps) == 3
    assert durations(run)[1:] == [4000.0] * 4


def test_a_fork_counts_neither_what_its_parent_did_after_it_nor_its_own_wait(run, make_run, clock):
    run.open(clock=clock)
    run.start()
    at(clock, 1, run.journal.append, TurnOpened(1, 0), 1)
    at(clock, 4, run.journal.append, Noted("t", "shared"), 1)
    upto = run.journal.seq
    at(clock, 600, run.journal.append, TurnOpened(2, 1), 2)
    child = make_run("fixer-2")
    forked = Forked("fixer-2", "fixer", b"/w", "w1", Lineage("fixer-1", "fixer-1", upto), 1)
    child.directory.mkdir(parents=True)
    fork_journal(run.directory, child.directory, upto=upto, forked=forked)
    clock.seconds = 2_000_000_000
    child.open(clock=clock)
    child.journal.append(Resumed("restored", 1, upto, 1), turn=1)
    clock.seconds += 9
    child.journal.append(TurnOpened(2, 1), turn=2)
    assert durations(child)[:2] == [1000.0, 12_000.0]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((), 100),
        (((20, 30),), 90),
        (((-5, 10), (95, 200)), 85),
        (((30, 20),), 100),  # the clock was put back: nothing is known
        (((-10, 300), (-20, 200)), 0),
        (((200, 300),), 100),
    ],
)
def test_only_what_lies_between_the_two_moments_counts(gaps, expected):
    assert RunView(gaps=gaps).worked_ns(0, 100) == expected
