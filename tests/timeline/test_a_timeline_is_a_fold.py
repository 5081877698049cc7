"""Entries in, rows and marks and totals out: the same however they come."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.core.content import Content
from crabrt.core.entries import (
    CallId,
    Exposed,
    Gated,
    Intent,
    Payload,
    Request,
    Response,
    Result,
    Resumed,
    RolledBack,
    Superseded,
    TurnOpened,
)
from crabrt.core.verdicts import Effect, Guess, Likely, Prior
from crabrt.journal import RunIndex, fold, read_journal
from crabrt.journal.inbox import Marks
from crabrt.journal.views import RESUMED, MoveView, RunView, TurnView
from crabrt.timeline.folding import Folding
from crabrt.timeline.marks import Mark, MarkKind, among, marks_of_moves, placed
from crabrt.timeline.rows import Row
from crabrt.timeline.signs import Tone
from crabrt.timeline.table import Packed, Rows
from crabrt.timeline.totals import Figures


def shown(timeline):
    """All of a state that does not depend on how it came about."""
    return (timeline.view, list(timeline.rows), timeline.marks, timeline.totals, timeline.labels)


def folded(run):
    folding = Folding(run.run)
    folding.feed(read_journal(run.directory))
    return folding.timeline()


def test_a_turn_is_a_row_with_what_a_line_shows(run):
    run.turn(prior=Prior.EXTERNAL)
    row = folded(run).rows.at(1)
    assert (row.verdict.shape, row.verdict.word, row.verdict.tone) == ("F", "files", Tone.FILES)
    assert row.checkpoint.text == "● durable"
    assert (row.view.model_wait_ms, row.tool_ms, row.view.exposed_ms) == (5.0, 3.0, 1.5)
    assert (row.view.files_added, row.view.files_changed, row.view.files_removed) == (1, 2, 3)
    assert [effect.name for effect in row.effects] == ["sh"]
    assert row.newest
    assert row.tool_counts() == {"sh": 1}
    assert [(span.name, span.asks_model, span.ok) for span in row.spans] == [
        ("think", True, True),
        ("sh", False, True),
    ]


@pytest.mark.parametrize(
    ("effects", "guess", "known"),
    [
        ((Effect.EXTERNAL,), Guess(Likely.EXTERNAL, "git push"), ["guess"]),
        ((Effect.EXTERNAL,), None, ["seen"]),
        ((Effect.FILES,), Guess(Likely.EXTERNAL, "git push"), []),  # looked at, and it was not
        ((Effect.FILES,), None, []),
    ],
)
def test_what_was_only_taken_for_external_or_seen_is_counted_apart(run, effects, guess, known):
    run.answer(run.begin())
    call = CallId("0", "sh", run.turns)
    run.say(Intent(call, b"d", Payload(), Prior.AUTO, None, guess))
    run.done(call)
    run.commit(run.turns, effects=effects)
    run.turn(prior=Prior.EXTERNAL)
    timeline = folded(run)
    row = timeline.rows.at(1)
    assert (row.effects, [how for _, how in row.suspected]) == ((), known)
    assert timeline.rows.at(2).suspected == ()
    assert (timeline.totals.effects, timeline.totals.suspected) == (1, len(known))


def test_every_verdict_and_checkpoint_has_a_shape_of_its_own(run):
    run.turn()
    timeline = folded(run)
    view = timeline.rows.at(1).view
    seen = set()
    for verdict in (("none",), ("files",), ("processes",), ("external",), ("files", "processes")):
        row = msgspec.structs.replace(view, verdict=verdict)
        seen.add(type(timeline.rows[0])(row, 1.0).verdict.shape)
    assert len(seen) == 5


def test_totals_are_the_sum_of_the_rows_also_when_turns_change_and_go(run):
    run.turn()
    run.turn()
    kept = run.journal.seq
    run.turn()
    before = folded(run)
    assert before.totals.turns == 3
    assert before.totals.cost_usd == 1.5
    run.say(Superseded(kept), 2)
    after = folded(run)
    assert after.totals.turns == 2
    for timeline in (before, after):
        figures = [timeline.rows.figures(at) for at in range(len(timeline.rows))]
        total = Figures()
        for one in figures:
            total += one
        assert timeline.totals == total
        assert total.bytes_stored == sum(row.view.bytes_stored for row in timeline.rows)


def test_series_have_at_most_as_many_points_as_asked_for_and_lose_nothing(run):
    for _ in range(7):
        run.turn()
    rows = folded(run).rows
    for points in (1, 3, 8, 100):
        series = rows.series("bytes_stored", points)
        assert len(series.values) <= points
        assert sum(series.values) == sum(row.view.bytes_stored for row in rows)
    assert rows.largest("model_us") == 5000.0


def test_what_happened_to_the_run_stands_between_the_turns(run):
    run.turn()
    run.turn()
    run.say(RolledBack(1, b"r" * 32))
    run.turn(base=1)
    run.close()
    run.open()
    run.say(Resumed("restored", 3, run.journal.seq, 9))
    run.turn()
    run.end("failed")
    timeline = folded(run)
    assert [(m.kind, m.after, m.to, m.text) for m in timeline.marks] == [
        (MarkKind.ROLLED_BACK, 2, 1, ""),
        (MarkKind.RESUMED, 3, 3, "restored"),
        (MarkKind.ENDED, 4, None, "failed"),
    ]
    assert timeline.marks[-1].sign.tone is Tone.BAD
    assert [timeline.marks_after(n) for n in range(6)] == [
        (), (), timeline.marks[:1], timeline.marks[1:2], timeline.marks[2:], (),
    ]  # fmt: skip
    assert timeline.rows.at(3).went_back_to == 1


def test_a_resume_is_not_forgotten_with_the_turns_that_it_made_void(run):
    run.turn()
    kept = run.journal.seq
    run.turn()
    run.say(Resumed("restored", 1, kept, 9))
    run.say(Superseded(kept), 1)
    timeline = folded(run)
    assert list(timeline.rows.numbers) == [0, 1]
    assert [(m.kind, m.after) for m in timeline.marks] == [(MarkKind.RESUMED, 1)]


def test_tools_that_run_side_by_side_count_once(run):
    run.answer(run.begin())
    one, two = CallId("0/1", "sh", 0), CallId("0/2", "sh", 0)
    for call in (one, two):
        run.say(Intent(call, b"", Payload(b"\xc0")))
    for call in (one, two):
        run.done(call, ms=60_000.0)
    row = folded(run).rows.at(1)
    assert 60_000 <= row.tool_ms < 61_000


def test_calls_without_a_result_are_open_the_oldest_first(run):
    think = run.begin()
    [call] = folded(run).rows.at(1).open_calls
    assert (call.name, call.asks_model, call.model) == ("think", True, "scripted")
    assert call.since_ns > 0
    run.answer(think)
    run.act("make")
    [call] = folded(run).rows.at(1).open_calls
    assert (call.name, call.asks_model) == ("make", False)


def test_an_unprotected_turn_says_why(run):
    run.turn()
    run.say(Exposed(1, "disk full"))
    timeline = folded(run)
    assert timeline.rows.at(1).is_unprotected
    assert timeline.rows.at(1).attention == ("unprotected: disk full",)
    assert timeline.totals.unprotected == 1


def test_nothing_but_the_entries_is_decoded(run):
    run.begin()
    call = CallId("0", "read", 9)
    nowhere = Content(1 << 40, 0, (b"\0" * 32,))  # there is no store at all
    run.say(Request(call, b"", Payload(b"\xc1 is no msgpack"), nowhere, "m"))
    run.say(Response(call, 1.0, Payload(content=nowhere)))
    assert len(folded(run).rows) == 2


def test_changed_names_the_turns_that_are_not_as_before(run):
    run.turn()
    folding = Folding(run.run)
    folding.feed(read_journal(run.directory))
    assert folding.timeline().changed is None
    run.say(Exposed(1, "late"))
    run.say(TurnOpened(2, 1), 2)
    folding.feed(read_journal(run.directory, after=folding.after))
    assert folding.timeline().changed == {1, 2}
    assert folding.timeline().changed == set()


def test_a_fold_that_goes_on_from_the_index_is_the_same(run, refreshed):
    for _ in range(3):
        run.turn()
    refreshed()
    run.turn()
    run.say(RolledBack(1, b"r" * 32))
    run.turn(base=1)
    with RunIndex.open(run.home) as index:
        taken_up = Folding(run.run, index.folded(run.run))
    assert len(taken_up.timeline().rows) == 4
    taken_up.feed(read_journal(run.directory, after=taken_up.after))
    assert shown(taken_up.timeline()) == shown(folded(run))


def test_it_says_of_turns_what_the_journals_own_fold_says(run):
    for _ in range(3):
        run.turn()
    assert [row.view for row in folded(run).rows] == fold(read_journal(run.directory)).turns()


@pytest.mark.parametrize("seen", range(3))
def test_rows_are_an_ordinary_sequence(run, seen):
    for _ in range(seen * 3):
        run.turn()
    rows = folded(run).rows
    every = list(rows)
    assert len(rows) == len(every) == 1 + seen * 3
    assert list(reversed(rows)) == every[::-1]
    assert rows[-1] == every[-1]
    assert rows[1:5:2] == every[1:5:2]
    assert list(rows.after(0)) == every[1:]
    assert rows.at(99) is None
    with pytest.raises(IndexError):
        rows[len(rows)]


@pytest.mark.parametrize("amount", [float("inf"), float("-inf"), float("nan"), -5.0, 1e300])
def test_what_no_clock_and_no_bill_can_say_counts_as_nothing(run, amount):
    call = run.begin()
    run.say(Response(call, amount, cost_usd=amount))
    run.say(Result(run.act(), amount))
    run.say(Gated(1, amount))
    timeline = folded(run)
    row = timeline.rows.at(1)
    assert (row.tool_ms, row.view.model_wait_ms, row.view.cost_usd) == (0, 0, 0)
    assert all(span.length_ms == 0 for span in row.spans)
    assert (timeline.totals.model_us, timeline.totals.cost_nano, timeline.totals.exposed_us) == (
        0,
        0,
        1500,
    )


STEPS = st.lists(
    st.sampled_from(["turn", "begin", "answer", "rollback", "expose", "resume", "void", "end"]),
    max_size=14,
)


def _play(run, steps):
    """Entries as steps say, in an order that no loop would write them in, too."""
    marks = [run.journal.seq]
    for step in steps:
        match step:
            case "turn":
                run.turn()
            case "begin":
                run.begin()
            case "answer":
                run.answer(CallId("0", "think", run.turns))
            case "rollback":
                run.say(RolledBack(0, b"r" * 32))
            case "expose":
                run.say(Exposed(run.turns, "why"))
            case "resume":
                run.say(Resumed("in-place", run.turns, marks[-1], 1))
            case "void":
                run.say(Superseded(marks[len(marks) // 2]))
                run.turns = fold(read_journal(run.directory)).run.turn
            case _:
                run.say(Resumed("in-place", run.turns, marks[-1], 1))
        marks.append(run.journal.seq)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_entries_may_come_in_any_portions(told, steps, sizes):
    told.count = getattr(told, "count", 0) + 1
    run = told(f"any-{told.count}").open().start()
    _play(run, steps)
    run.close()
    records = list(read_journal(run.directory))
    whole = Folding(run.run)
    whole.feed(records)
    portions, at, turn = Folding(run.run), 0, 0
    while at < len(records):
        size = sizes[turn % len(sizes)]
        portions.feed(records[at : at + size])
        portions.timeline()
        at, turn = at + size, turn + 1
    assert shown(portions.timeline()) == shown(whole.timeline())


@given(
    starts=st.lists(st.integers(0, 100), max_size=8).map(sorted),
    marks=st.lists(st.tuples(st.integers(-1, 9), st.integers(0, 1_000_000)), max_size=12),
    moved=st.lists(st.integers(0, 9), max_size=4),
)
def test_marks_among_rows_stand_where_the_timeline_places_them(starts, marks, moved):
    views = [
        TurnView(
            number, number - 1, start * 10_000,
            moves=tuple(MoveView(RESUMED, at, start * 10_000 + at, how="restored")
                        for at, turn in enumerate(moved) if turn == number),
        )
        for number, start in enumerate(starts)
    ]  # fmt: skip
    beside = [Mark(MarkKind.FORK, after, wall, run=f"run-{at}")
              for at, (after, wall) in enumerate(marks)]  # fmt: skip
    rows = Rows([Packed.of(view) for view in views], RunView(), Marks(), live=False)
    told = list(among(list(rows), beside))
    assert [one for one in told if isinstance(one, Row)] == list(rows)
    moves = [mark for view in views for mark in marks_of_moves(view.turn, view.moves)]
    expected = placed([*moves, *beside], rows) if views else ()
    assert {one for one in told if isinstance(one, Mark)} == set(expected)
    latest = -1
    for one in told:
        if isinstance(one, Row):
            latest = one.number
        else:
            assert latest == min(one.after, len(views) - 1)


def test_what_happened_before_the_first_row_is_left_out():
    rows = [Row(TurnView(number, number - 1, number * 100), 1.0) for number in (3, 4)]
    marks = [Mark(MarkKind.FORK, 2, 299, run="a"), Mark(MarkKind.RESTORED, -1, 299),
             Mark(MarkKind.RESTORED, -1, 300), Mark(MarkKind.FORK, 3, 1, run="b")]  # fmt: skip
    third, fork, restore, fourth = among(rows, marks)
    assert (third.number, fork.run, restore.after, fourth.number) == (3, "b", 3, 4)
