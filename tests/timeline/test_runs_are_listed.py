"""The list of runs: how each one is, who came from whom, and what is wrong with the store."""

from __future__ import annotations

import shutil

import pytest

from crabrt.core.entries import Ended, Failure, Forked, Lineage, Payload
from crabrt.errors import InDoubt
from crabrt.journal import Marks, RunRow, RunView, label_turn
from crabrt.runtime.structured import type_tag
from crabrt.store import Store
from crabrt.timeline.runs import RunItem, Runs, families, how_to_go_on
from crabrt.timeline.runs_feed import RunsFeed


@pytest.fixture
def store(home):
    Store.open(home, create=True).close()
    return home


@pytest.fixture
def runs(store):
    with RunsFeed(store) as feed:
        yield feed


def newest(feed):
    while feed.poll() is not None:
        pass
    return feed.runs


def test_a_run_is_listed_with_its_state_protection_and_what_it_does(told, runs):
    run = told().open().start()
    run.turn()
    run.begin()
    [item] = newest(runs).items
    assert (item.state, item.live, item.row.turns) == ("running", True, 2)
    assert item.protection.word == "pending"
    assert [call.name for call in item.open_calls] == ["think"]
    run.end()
    [item] = newest(runs).items
    assert (item.state, item.open_calls) == ("done", ())


def test_the_first_list_is_what_was_known_and_the_next_is_up_to_date(told, runs, refreshed):
    told("old-1").open().start().end()
    refreshed()
    told("new-1").open().start().end()
    assert [item.run for item in runs.poll().items] == ["old-1"]
    assert {item.run for item in runs.poll().items} == {"old-1", "new-1"}
    assert runs.poll() is None


def test_a_run_that_waits_for_a_decision_says_so(told, runs):
    run = told().open().start()
    run.say(Ended("failed", 1.0, failure=Failure(type_tag(InDoubt), "did it?", Payload())))
    run.close()
    [item] = newest(runs).items
    assert (item.state, item.row.status) == ("waiting", "failed")
    *_, did, did_not, last = how_to_go_on(item.run, item.row.status, item.row.view)
    assert 'it did:      in_doubt="skip"' in did
    assert 'it did not:  in_doubt="retry"' in did_not
    assert last == f"Then take it up again: crab resume {item.run}"


def test_a_label_on_the_latest_turn_is_seen_though_the_journal_is_as_it_was(told, runs):
    run = told().open().start()
    run.turn()
    newest(runs)
    label_turn(run.directory, "good", 1)
    [item] = newest(runs).items
    assert item.latest.labels == ("good",)


def test_a_run_that_is_deleted_leaves_the_list(told, runs):
    run = told().open().start()
    assert len(newest(runs).items) == 1
    run.close()
    shutil.rmtree(run.directory)
    assert newest(runs).items == ()


def test_a_damaged_run_is_listed_beside_the_others(told, runs):
    told("good-1").open().start().end()
    bad = told("bad-1").open().start()
    bad.turn()
    bad.close()
    [segment] = (bad.directory / "journal").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[300] ^= 0xFF
    segment.write_bytes(data)
    listed = newest(runs)
    assert {item.run: item.state for item in listed.items} == {
        "good-1": "done",
        "bad-1": "damaged",
    }
    assert listed.problem is None


def test_a_store_that_is_not_there_or_not_understood_is_a_state(tmp_path, store, told):
    with RunsFeed(tmp_path / "nowhere") as feed:
        assert feed.poll().problem.kind == "not-found"
        assert feed.poll() is None
    told().open().start().end()
    with RunsFeed(store) as feed:
        assert len(newest(feed).items) == 1
        text = (store / "format.json").read_text()
        (store / "format.json").write_text(text.replace('"version": 1', '"version": 99'))
        state = newest(feed)
        assert state.problem.kind == "format-too-new"
        assert len(state.items) == 1  # what was known stays
        (store / "format.json").write_text(text)
        assert newest(feed).problem is None


def test_live_runs_are_looked_at_each_time_and_all_others_when_that_is_due(told, runs):
    still, live = told("still-1").open().start(), told("live-1").open().start()
    still.close()
    assert len(newest(runs).items) == 2
    runs._due = float("inf")
    label_turn(still.directory, "late", 0)
    live.turn()
    state = newest(runs)
    assert state.find("live-1").row.turns == 1
    assert state.find("still-1").latest.labels == ()
    runs._due = 0.0
    assert newest(runs).find("still-1").latest.labels == ("late",)
    runs._due = float("inf")
    told("new-1").open().start()
    assert newest(runs).find("new-1") is not None


def test_a_live_run_that_vanishes_between_two_looks_is_no_problem(told, runs):
    live = told("live-1").open().start()
    newest(runs)
    runs._due = float("inf")
    shutil.rmtree(live.directory)
    state = newest(runs)
    assert (state.items, state.problem) == ((), None)


def test_following_gives_each_change_and_ends_when_stopped(told, runs):
    run = told().open().start()
    seen = []
    for state in runs.follow():
        seen.append([item.state for item in state.items])
        if seen[-1] == ["running"]:
            run.end()
        if seen[-1] == ["done"]:
            runs.stop()
    assert seen[-2:] == [["running"], ["done"]]


def _item(name, parent=None, *, at=0, updated=0):
    """A run that is nothing but its place in a family."""
    view = RunView(run=name, lineage=Lineage(name, parent))
    return RunItem(
        RunRow(
            name, name, b"/w", "w", "done", 0, at, updated, parent, name, None, {}, view, Marks()
        )
    )


def _names(nodes):
    return [(node.item.run, _names(node.children)) for node in nodes]


def test_forks_and_children_stand_below_the_run_they_came_from():
    items = [
        _item("a", at=1, updated=1),
        _item("b", "a", at=3, updated=9),
        _item("c", "a", at=2, updated=2),
        _item("d", "b", at=4, updated=4),
        _item("e", at=5, updated=5),
        _item("f", "deleted", at=6, updated=6),
    ]
    assert _names(families(items)) == [
        ("a", [("c", []), ("b", [("d", [])])]),  # something happened in it last
        ("f", []),
        ("e", []),
    ]


def test_runs_that_say_they_descend_from_each_other_are_all_listed_once():
    items = [_item("a", "c"), _item("b", "a"), _item("c", "b"), _item("d", "d")]
    found, ahead = [], list(families(items))
    while ahead:
        node = ahead.pop()
        found.append(node.item.run)
        ahead.extend(node.children)
    assert sorted(found) == ["a", "b", "c", "d"]


def test_a_long_chain_of_forks_is_no_deep_recursion():
    items = [_item(f"r{n}", f"r{n - 1}" if n else None, at=n) for n in range(3_000)]
    listed = Runs(tuple(items)).listed()
    assert [placed.depth for placed in listed[:3]] == [0, 1, 2]
    assert len(listed) == 3_000
    assert all(placed.last for placed in listed)


def test_the_tree_says_where_lines_go_on():
    items = [
        _item("a", at=1),
        _item("b", "a", at=2),
        _item("c", "b", at=3),
        _item("d", "a", at=4),
    ]
    listed = Runs(tuple(items)).listed()
    assert [(p.item.run, p.depth, p.last, p.above) for p in listed] == [
        ("a", 0, True, ()),
        ("b", 1, False, (False,)),
        ("c", 2, True, (False, True)),
        ("d", 1, True, (False,)),
    ]


def test_a_fork_is_a_child_of_its_parent_in_the_list(told, runs):
    parent = told("one-1").open().start()
    parent.turn()
    fork = told("two-1", parent="one-1").open().start()
    lineage = Lineage("one-1", "one-1", fork.journal.seq, b"c" * 32)
    fork.say(Forked("two-1", "two", b"/w2", "w2", lineage, 0))
    fork.close()
    listed = newest(runs).listed()
    assert [(p.item.run, p.depth, p.item.state) for p in listed] == [
        ("one-1", 0, "running"),
        ("two-1", 1, "forked"),
    ]
