import os
import time

import pytest

from crabrt.errors import DamagedJournal
from crabrt.journal import RunIndex, label_turn, pin_turn, thin_turns
from crabrt.operations.retention import (
    CAP_KEEPS_TURNS,
    Policy,
    apply_plan,
    enforce_cap,
    make_plan,
    pack_bytes,
)
from crabrt.operations.roots import collect_garbage
from crabrt.operations.targets import resolve
from crabrt.store import Store
from crabrt.workspace.restoring import restore_to


def big_run(builder, home, workspace, turns, *, size=20_000, **options):
    workspace.mkdir(exist_ok=True)
    run = builder.RunBuilder(home, workspace, **options)
    for _ in range(turns):
        run.turn(lambda: (workspace / "big").write_bytes(os.urandom(size)))
    return run


def planned(home, policy, **options):
    with RunIndex.open(home) as index:
        index.refresh()
        return make_plan(index, policy, store_bytes=pack_bytes(home), **options)


def restorable(home, run):
    with RunIndex.open(home) as index:
        index.refresh()
        return [turn.turn for turn in index.turns(run) if turn.restorable]


def test_no_limit_thins_nothing(builder, home, workspace):
    big_run(builder, home, workspace, 5).end()
    assert planned(home, Policy()).runs == ()


def test_ends_labels_and_pins_are_kept(builder, home, workspace):
    run = big_run(builder, home, workspace, 6)
    label_turn(run.directory, "dear", 2)
    pin_turn(run.directory, 3)
    run.end()
    (plan,) = planned(home, Policy(keep_per_run=0)).runs
    assert plan.turns == (1, 4, 5)
    (plan,) = planned(home, Policy(keep_per_run=0, keep_labelled=False)).runs
    assert plan.turns == (1, 2, 4, 5)
    (plan,) = planned(home, Policy(keep_per_run=4)).runs
    assert plan.turns == (1,)


def test_age_and_number_of_runs_limit_what_may_go(builder, home, workspace):
    first = big_run(builder, home, workspace, 3)
    first.end()
    second = big_run(builder, home, workspace, 3)
    second.end()
    old = time.time_ns() + 10 * 86_400 * 10**9
    assert planned(home, Policy(older_than_s=86_400)).runs == ()
    plan = planned(home, Policy(older_than_s=86_400), now_ns=old)
    assert [one.run for one in plan.runs] == [first.run, second.run]
    plan = planned(home, Policy(older_than_s=86_400, keep_last=1), now_ns=old)
    assert [one.run for one in plan.runs] == [first.run]
    assert planned(home, Policy(keep_last=5)).runs == ()


def test_a_live_run_is_left_alone(builder, home, workspace):
    run = big_run(builder, home, workspace, 3)
    plan = planned(home, Policy(keep_last=0, keep_per_run=0, drop_runs=True))
    assert plan.runs == ()
    assert plan.live == (run.run,)
    run.close()
    assert planned(home, Policy(keep_per_run=0)).runs


def test_a_state_that_a_kept_turn_shares_is_not_given_up(builder, home, workspace):
    run = big_run(builder, home, workspace, 2)
    run.turn(None)
    run.turn(None)
    run.end()
    (plan,) = planned(home, Policy(keep_per_run=0)).runs
    assert plan.turns == (1,)  # 2 and 3 are the state of 4


def test_a_size_takes_the_oldest_first_and_only_as_many_as_needed(builder, home, workspace):
    first = big_run(builder, home, workspace, 6)
    first.end()
    second = big_run(builder, home, workspace, 6)
    second.end()
    size = pack_bytes(home)
    plan = planned(home, Policy(max_bytes=size - 50_000))
    assert [one.run for one in plan.runs] == [first.run]
    with Store.open(home) as store:
        apply_plan(store, plan, reason="test")
    assert restorable(home, first.run) == [0, 6]
    assert restorable(home, second.run) == list(range(7))
    assert pack_bytes(home) < size - 50_000


def test_what_was_not_thinned_restores_after_gc(builder, home, workspace, tmp_path):
    run = big_run(builder, home, workspace, 8)
    run.end()
    with Store.open(home) as store:
        thin_turns(run.directory, [1, 2, 3, 5, 6])
        report = collect_garbage(store)
        assert report.missing == ()
        assert report.packs_rewritten + report.packs_removed > 0
        with RunIndex.open(home) as index:
            index.refresh()
            for turn in (0, 4, 7, 8):
                restore_to(store, resolve(index, f"last@{turn}").root, tmp_path / f"r{turn}")


def test_a_damaged_journal_stops_the_collection(builder, home, workspace):
    run = big_run(builder, home, workspace, 4)
    run.end()
    (segment,) = (run.directory / "journal").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    before = pack_bytes(home)
    with Store.open(home) as store, pytest.raises(DamagedJournal):
        collect_garbage(store)
    assert pack_bytes(home) == before


def test_the_cap_does_nothing_below_it(builder, home, workspace):
    big_run(builder, home, workspace, 2).end()
    with Store.open(home) as store:
        assert enforce_cap(store, 1 << 30) is None


def test_the_cap_thins_ended_runs_before_the_live_one(builder, home, workspace):
    ended = big_run(builder, home, workspace, 10)
    ended.end()
    live = big_run(builder, home, workspace, 5)
    with Store.open(home) as store:
        cap = pack_bytes(home) - 40_000
        assert enforce_cap(store, cap) is not None
    assert restorable(home, ended.run) == [0, 10]
    assert restorable(home, live.run) == list(range(6))
    live.turn(lambda: (workspace / "big").write_bytes(b"it goes on"))
    live.close()


def test_a_live_run_alone_over_the_cap_keeps_its_ends_and_last_turns(builder, home, workspace):
    live = big_run(builder, home, workspace, CAP_KEEPS_TURNS + 10, size=4_000)
    label_turn(live.directory, "dear", 3)
    with Store.open(home) as store:
        done = enforce_cap(store, 50_000)
    assert done.plan.turns > 0
    kept = restorable(home, live.run)
    assert {0, 3} <= set(kept)
    assert kept[-CAP_KEEPS_TURNS:] == list(range(11, 61))
    assert 1 not in kept
    live.close()


def test_condemned_packs_that_wait_for_a_live_writer_count_as_gone(builder, home, workspace):
    """Otherwise each look at the size would thin more, until nothing is left."""
    ended = big_run(builder, home, workspace, 10)
    ended.end()
    other = big_run(builder, home, workspace, 10)
    other.end()
    live = big_run(builder, home, workspace, 1)
    with Store.open(home) as store:
        cap = pack_bytes(home) - 30_000
        enforce_cap(store, cap)
        enforce_cap(store, cap)
        enforce_cap(store, cap)
    assert restorable(home, other.run) == list(range(11))
    live.close()
