"""What a run's turns come to: shares of verdicts, exposed delays, and whether priors were right."""

import pytest

from crabrt.core.entries import CallId
from crabrt.core.verdicts import Prior
from crabrt.journal import ToolView, TurnView
from crabrt.operations.statistics import percentile, statistics_of


def turn(number, verdict, *tools, exposed_ms=0.0):
    views = tuple(
        ToolView(CallId("0", name, number), True, number, prior=prior) for name, prior in tools
    )
    return TurnView(number, 0, 0, verdict=verdict, tools=views, exposed_ms=exposed_ms)


def records(*turns):
    return {(one.name, one.prior): one for one in statistics_of(turns).tools}


def test_shares_are_of_the_turns_that_have_a_verdict_and_the_baseline_is_none():
    found = statistics_of([
        turn(0, ("files",)),
        turn(1, ("none",)),
        turn(2, ("files", "external")),
        turn(3, ("files",)),
        turn(4, ("caches",)),
        turn(5, ()),
    ])  # fmt: skip
    assert (found.turns, found.judged) == (5, 4)
    assert found.verdicts == {"none": 1, "files": 2, "external": 1, "caches": 1}
    assert (found.share("files"), found.share("processes")) == (0.5, 0.0)
    assert statistics_of([turn(1, ())]).share("none") is None


def test_a_prior_is_right_where_its_turn_did_what_was_declared():
    look, edit = ("look", Prior.NONE), ("edit", Prior.FILES)
    found = records(
        turn(1, ("none",), look),
        turn(2, ("files",), look),
        turn(3, ("files",), edit, edit),
        turn(4, ("none",), edit),
        turn(5, ("files", "processes"), edit),
    )
    assert (found[look].right, found[look].wrong, found[look].calls) == (1, 1, 2)
    assert (found[edit].right, found[edit].wrong, found[edit].calls) == (1, 2, 4)
    assert found[look].share_right == 0.5
    assert found[edit].observed == {"files": 2, "none": 1, "processes": 1}


def test_a_turn_that_another_tool_may_have_changed_speaks_of_none_and_an_idle_one_of_all():
    look, sh = ("look", Prior.NONE), ("sh", Prior.AUTO)
    found = records(turn(1, ("files",), look, sh), turn(2, ("none",), look, sh), turn(3, (), look))
    assert (found[look].right, found[look].wrong, found[look].unclear) == (1, 0, 1)
    assert (found[sh].right, found[sh].wrong, found[sh].unclear) == (0, 0, 1)
    assert found[sh].observed == {"none": 1}
    assert found[sh].share_right is None


def test_what_is_declared_external_is_never_judged():
    pay, look = ("pay", Prior.EXTERNAL), ("look", Prior.NONE)
    found = records(turn(1, ("external",), pay), turn(2, ("external",), pay, look))
    assert (found[pay].right, found[pay].wrong) == (0, 0)
    assert (found[look].right, found[look].wrong) == (1, 0)


def test_one_tool_under_two_priors_is_two_records():
    found = records(turn(1, ("none",), ("sh", Prior.NONE)), turn(2, ("none",), ("sh", Prior.AUTO)))
    assert set(found) == {("sh", Prior.NONE), ("sh", Prior.AUTO)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None, None)),
        ([7.0], (7.0, 7.0, 7.0)),
        ([float(n) for n in range(1, 201)], (100.0, 198.0, 200.0)),
    ],
)
def test_delays_are_by_nearest_rank(values, expected):
    assert tuple(percentile(values, p) for p in (50, 99, 100)) == expected
    turns = [turn(n, ("none",), exposed_ms=ms) for n, ms in enumerate(values, 1)]
    exposed = statistics_of(reversed(turns)).exposed
    assert (exposed.p50_ms, exposed.p99_ms, exposed.max_ms) == expected
    assert exposed.total_ms == sum(values)
