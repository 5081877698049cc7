"""A filter on a live run: what fits is found by rows, trees and texts, each looked at once."""

from __future__ import annotations

import pytest

from crabrt.errors import DamagedObject
from crabrt.journal import thin_turns
from crabrt.operations import touching
from crabrt.timeline import searching
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.filtering import parse_filter
from crabrt.timeline.reader import RunReader
from crabrt.tui import finding
from crabrt.tui.finding import FilterFinder, TouchFinder
from crabrt.tui.sources import Source


@pytest.fixture
def source(home):
    source = Source(home)
    yield source
    source.close()


@pytest.fixture
def feed(run, home):
    with RunFeed(home, run.run) as feed:
        feed.read_all()
        yield feed


def finish(finder, state):
    for _ in range(1_000):
        fitting = finder.step(state)
        if fitting.done:
            return fitting
    raise AssertionError(fitting)


def go_on(finder, feed):
    """Take in what is new in the run; what fits then."""
    states = [feed.timeline]
    while states[-1] is not None:
        states.append(feed.poll())
    finder.changed(states[1:-1])
    return finish(finder, feed.timeline)


def many(run, names):
    def change():
        for name in names:
            run.write(name, name)

    return change


def test_a_path_is_found_however_many_others_changed_with_it(run, feed, source):
    names = [f"{number:03}.txt" for number in range(300)]
    number = run.turn(many(run, names))
    finder = FilterFinder(source, feed.read_all(), parse_filter(f"path:{names[-1]}"))
    found = finish(finder, feed.timeline)
    assert (found.numbers, found.missed, found.problem) == ((number,), 0, "")
    nothing = FilterFinder(source, feed.timeline, parse_filter("path:nowhere"))
    assert finish(nothing, feed.timeline).numbers == ()


def test_trees_are_asked_in_slices(run, feed, source, monkeypatch):
    number = run.turn(many(run, [f"{number:03}.txt" for number in range(300)]))
    monkeypatch.setattr(finding, "_SLICE_S", -1.0)
    monkeypatch.setattr(finding, "_LOOKED_AT_ONCE", 50)
    state = feed.read_all()
    finder = FilterFinder(source, state, parse_filter("path:299.txt"))
    steps = 0
    while not finder.step(state).done:
        steps += 1
    assert steps > len(state.rows)
    assert finder.step(state).numbers == (number,)


def test_turns_of_which_nobody_knows_the_paths_are_counted(run, feed, source):
    thin_turns(run.directory, [2])
    state = feed.read_all()
    fitting = finish(FilterFinder(source, state, parse_filter("path:README")), state)
    assert (fitting.numbers, fitting.missed) == ((), 1)


def test_a_turn_of_a_live_run_is_asked_again_when_it_has_ended(run, feed, source):
    finder = FilterFinder(source, feed.timeline, parse_filter("path:late"))
    assert finish(finder, feed.timeline) == finding.Fitting((), done=True)
    call = run.begin()
    assert go_on(finder, feed) == finding.Fitting((), done=True)
    run.answer(call)
    run.write("late.txt", "x")
    run.checkpoint(run.turns)
    assert go_on(finder, feed).numbers == (run.turns,)


def test_a_turn_that_was_cut_off_is_one_nobody_knows_the_paths_of(run, feed, source):
    run.begin()
    run.journal.sync()
    finder = FilterFinder(source, feed.read_all(), parse_filter("path:late"))
    assert finish(finder, feed.timeline).missed == 0
    run.close()
    assert go_on(finder, feed).missed == 1


def test_damage_is_told_and_other_turns_are_looked_through(run, feed, source, monkeypatch):
    whole = RunReader.paths_changed

    def damaged(reader, rows, number):
        if number == 4:
            reader.store.get(b"n" * 32)
        return whole(reader, rows, number)

    monkeypatch.setattr(RunReader, "paths_changed", damaged)
    fitting = finish(
        FilterFinder(source, feed.timeline, parse_filter("path:app.py")), feed.timeline
    )
    assert (fitting.numbers, fitting.missed) == ((1,), 1)
    assert fitting.problem


def test_a_text_is_looked_for_only_in_what_is_new(run, feed, source, monkeypatch):
    read = []
    whole = searching.read_journal

    def told(directory, **options):
        for record in whole(directory, **options):
            read.append(record.entry.seq)
            yield record

    monkeypatch.setattr(searching, "read_journal", told)
    finder = FilterFinder(source, feed.timeline, parse_filter("gone"))
    assert finish(finder, feed.timeline).numbers == (8,)
    for _ in range(3):
        before = run.journal.seq
        assert read == list(range(1, before + 1))
        number = run.turn(None, result="gone again")
        assert number in go_on(finder, feed).numbers
    assert read == list(range(1, run.journal.seq + 1))
    assert go_on(finder, feed).numbers == (8, 9, 10, 11)
    assert len(read) == run.journal.seq


@pytest.fixture
def compared(monkeypatch):
    """The states that were compared, in order."""
    whole, told = touching.diff_roots, []

    def diff(reader, base, root, scope):
        told.append((base, root))
        return whole(reader, base, root, scope)

    monkeypatch.setattr(touching, "diff_roots", diff)
    return told


def test_turns_that_touched_a_path_are_looked_for_only_in_what_is_new(run, feed, source, compared):
    finder = TouchFinder(source, b"src/app.py")
    assert finish(finder, feed.timeline).numbers == (1, 4)
    before = len(compared)
    assert before > 2
    for written in ("one", "two", "three"):
        run.turn(lambda written=written: run.write("src/app.py", written))
        assert go_on(finder, feed).numbers[-1] == run.turns
    run.turn(lambda: run.write("other.txt", "x"))
    assert go_on(finder, feed).numbers == (1, 4, 9, 10, 11)
    assert len(compared) == before + 4


def test_a_turn_that_goes_on_is_asked_again_whether_it_touched_a_path(run, feed, source):
    finder = TouchFinder(source, b"late.txt")
    assert finish(finder, feed.timeline).numbers == ()
    call = run.begin()
    assert go_on(finder, feed).numbers == ()
    run.answer(call)
    run.write("late.txt", "x")
    run.checkpoint(run.turns)
    assert go_on(finder, feed).numbers == (run.turns,)


def test_a_state_that_was_missed_makes_it_look_at_everything(run, feed, source, compared):
    finder = TouchFinder(source, b"src/app.py")
    finish(finder, feed.timeline)
    before = len(compared)
    run.turn(lambda: run.write("src/app.py", "one"))
    feed.read_all()  # nobody is told of these states
    run.turn(lambda: run.write("src/app.py", "two"))
    assert go_on(finder, feed).numbers == (1, 4, 9, 10)
    assert len(compared) >= 2 * before


def test_a_turn_that_was_given_up_is_compared_with_its_neighbours(run, feed, source):
    finder = TouchFinder(source, b"src/app.py")
    assert finish(finder, feed.timeline).numbers == (1, 4)
    thin_turns(run.directory, [4])
    found = go_on(finder, feed).numbers
    anew = finish(TouchFinder(source, b"src/app.py"), feed.timeline).numbers
    assert found == anew
    assert 4 not in found


def test_what_cannot_be_compared_is_told(run, feed, source, monkeypatch):
    def damaged(*_):
        raise DamagedObject("not there", where="a pack")

    monkeypatch.setattr(touching, "diff_roots", damaged)
    fitting = finish(TouchFinder(source, b"src/app.py"), feed.timeline)
    assert "not there" in fitting.problem


async def test_the_bar_says_how_many_turns_could_not_be_looked_through(run, show):
    thin_turns(run.directory, [2])
    async with show("fixer-1") as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 8)
        await seen.press("slash")
        await seen.type("path:app")
        await seen.until("2 turns; 1 turn could not be looked through")
        assert seen.app.screen.timeline.keys == (1, 4)
