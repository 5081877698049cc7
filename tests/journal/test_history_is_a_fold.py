"""What a journal says about turns: late entries, reruns, rollbacks, forks, labels."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crabrt.core.content import Content
from crabrt.core.entries import (
    CallId,
    Captured,
    Checkpoint,
    Ended,
    Exposed,
    Failure,
    Forked,
    Gated,
    Intent,
    Labelled,
    Lineage,
    Payload,
    Request,
    Response,
    Result,
    Resumed,
    RolledBack,
    Superseded,
    TurnOpened,
)
from crabrt.core.ids import ObjectKind
from crabrt.core.verdicts import Guess, Likely, Prior, Protection
from crabrt.errors import DamagedJournal, NotFound, UsageError
from crabrt.journal import (
    Journal,
    Lease,
    RunIndex,
    fold,
    fork_journal,
    read_journal,
    references,
    run_dir,
    thin_turns,
    turn_detail,
)

NOTHING = Payload()


def _fold(run):
    return fold(read_journal(run.directory))


def test_a_turn_has_its_calls_files_times_and_checkpoint(run):
    run.open()
    run.start()
    run.turn(1)
    run.journal.append(Gated(1, 2.5), turn=2)
    run.journal.append(Gated(1, 1.5), turn=2)
    turn = _fold(run).turn(1)
    assert turn.verdict == ("files",)
    assert (turn.files_added, turn.files_changed, turn.files_removed) == (1, 2, 3)
    assert [(t.name, t.ok, t.duration_ms) for t in turn.tools] == [("sh", True, 3.0)]
    assert (turn.model_wait_ms, turn.tokens_in, turn.tokens_out, turn.cost_usd) == (5.0, 7, 2, 0.5)
    assert turn.exposed_ms == 4.0
    assert turn.protection is Protection.DURABLE
    assert turn.restorable


def test_entries_about_a_turn_may_come_after_the_next_one_opened(run):
    run.open()
    run.start()
    run.journal.append(TurnOpened(1, 0), turn=1)
    run.journal.append(TurnOpened(2, 1), turn=2)
    run.commit(1, b"1" * 32, position=3)
    history = _fold(run)
    assert history.turn(1).root == b"1" * 32
    assert history.turn(1).position == 3
    assert history.turn(2).root is None
    assert history.run.restorable == 1


def test_a_call_that_ran_again_is_one_call_and_its_last_result_counts(run):
    run.open()
    run.start()
    call = CallId("0", "sh", 0)
    run.journal.append(TurnOpened(1, 0), turn=1)
    run.journal.append(Intent(call, b"", NOTHING), turn=1)
    run.journal.append(Result(call, 1.0, NOTHING, Failure("E", "m", NOTHING)), turn=1)
    assert _fold(run).turn(1).tools[0].ok is False
    run.journal.append(Resumed("restored", 0, 3, 99), turn=1)
    run.journal.append(Intent(call, b"", NOTHING), turn=1)
    assert _fold(run).turn(1).tools[0].ok is None
    run.journal.append(Result(call, 2.0, NOTHING), turn=1)
    [tool] = _fold(run).turn(1).tools
    assert (tool.ok, tool.duration_ms, tool.times) == (True, 2.0, 2)
    assert _fold(run).run.resumed == 1


def test_superseded_calls_and_the_turns_they_made_go_but_external_ones_stay(run):
    run.open()
    run.start()
    first, charge, push, later = (CallId("0", name, 0) for name in ("sh", "pay", "push", "late"))
    run.journal.append(TurnOpened(1, 0), turn=1)
    at = run.journal.append(Intent(first, b"", NOTHING), turn=1)
    run.journal.append(Result(first, 1.0, NOTHING), turn=1)
    run.journal.append(TurnOpened(2, 1), turn=2)
    run.journal.append(Intent(charge, b"", NOTHING, Prior.EXTERNAL), turn=2)
    run.journal.append(Result(charge, 1.0, NOTHING), turn=2)
    taken_for = Guess(Likely.EXTERNAL, "git push: leaves the machine")
    run.journal.append(Intent(push, b"", NOTHING, guess=taken_for), turn=2)
    run.journal.append(Result(push, 1.0, NOTHING), turn=2)
    run.journal.append(Intent(later, b"", NOTHING, guess=Guess(Likely.FILES)), turn=2)
    run.journal.append(TurnOpened(3, 2), turn=3)
    run.journal.append(Superseded(at), turn=1)
    history = _fold(run)
    assert [t.call for t in history.turn(1).tools] == [first]
    assert [t.call for t in history.turn(2).tools] == [charge, push]
    assert history.turn(3) is None
    assert history.run.turn == 2


def test_inherited_unprotected_rolled_back_and_inner_states(run):
    run.open()
    run.start()
    root = b"1" * 32
    run.turn(1, root=root)
    run.journal.append(TurnOpened(2, 1), turn=2)
    run.commit(2, b"i" * 32, inner=1)
    run.commit(2, root, protection=Protection.INHERITED)
    run.journal.append(TurnOpened(3, 2), turn=3)
    run.journal.append(Exposed(3, "disk full"), turn=3)
    run.journal.append(RolledBack(1, root), turn=3)
    run.journal.append(TurnOpened(4, 1), turn=4)
    history = _fold(run)
    assert history.turn(2).root == root
    assert history.turn(2).protection is Protection.INHERITED
    assert [(i.inner, i.root) for i in history.turn(2).inner] == [(1, b"i" * 32)]
    assert history.turn(3).protection is Protection.UNPROTECTED
    assert history.turn(3).unprotected == ("disk full",)
    assert history.turn(4).base == 1
    assert (history.run.root, history.run.root_turn) == (root, 1)


def test_a_turn_captured_and_never_durable_is_restorable_and_says_so(run):
    run.open()
    run.start()
    run.journal.append(TurnOpened(1, 0), turn=1)
    run.journal.append(Captured(1, 0, b"c" * 32, 4), turn=1)
    turn = _fold(run).turn(1)
    assert (turn.root, turn.protection) == (b"c" * 32, Protection.CAPTURED)


def test_status_follows_the_last_end_and_the_last_resume(run):
    run.open()
    run.start()
    assert _fold(run).run.status == "open"
    run.journal.append(Ended("failed", 4.0, NOTHING, Failure("E", "m", NOTHING)), turn=0)
    assert _fold(run).run.status == "failed"
    run.journal.append(Resumed("in-place", 0, 1, 7), turn=0)
    assert _fold(run).run.status == "open"
    run.journal.append(Ended("done", 4.0), turn=0)
    assert _fold(run).run.status == "done"


@pytest.mark.parametrize(
    "body",
    [
        TurnOpened(-1, 0),
        TurnOpened(1 << 50, 0),
        Captured(0, 0, b"short", 0),
        Checkpoint(1, 2, b"", 0),
        RolledBack(0, b"x"),
        Checkpoint(1, 0, b"r" * 32, 0, bytes_stored=-1),
        Forked("f", "f", b"", "w", Lineage("f"), -(1 << 63)),
    ],
)
def test_a_body_that_makes_no_sense_is_damage(run, body):
    run.open()
    run.start()
    run.journal.append(body, turn=0)
    with pytest.raises(DamagedJournal):
        _fold(run)


def test_a_turns_detail_has_what_went_in_and_came_out(run):
    run.open()
    run.start()
    for n in range(1, 4):
        run.turn(n)
    call = CallId("0", "sh", 99)
    messages = Content(3, 0, (b"m" * 32,))
    run.journal.append(TurnOpened(4, 3), turn=4)
    run.journal.append(Request(call, b"", NOTHING, messages, "big"), turn=4)
    run.journal.append(Response(call, 9.0, Payload(inline=b"reply"), tokens_in=3), turn=4)
    history = _fold(run)
    detail = turn_detail(run.directory, history.turn(4))
    assert detail.calls[0].messages == messages
    assert detail.calls[0].result.inline == b"reply"
    assert detail.calls[0].asked == "big"
    assert [c.model for c in turn_detail(run.directory, history.turn(2)).calls] == [True, False]


def _fork(run, upto, turn, name="fork-1", workspace="w2"):
    child = run_dir(run.home, name)
    lineage = Lineage(run.id, run.id, upto)
    fork_journal(
        run.directory,
        child,
        upto=upto,
        forked=Forked(name, "fork", b"/f", workspace, lineage, turn),
    )
    return child


def test_a_fork_has_the_parents_turns_and_goes_on_by_itself(run, make_run):
    run.open(segment_bytes=1500)
    run.start()
    run.journal.sync()
    seqs = {}
    for n in range(1, 8):
        seqs[n] = run.turn(n)
        run.journal.append(Labelled(n, f"l{n}"), turn=n)
        run.journal.sync()
    parents = [r.entry for r in read_journal(run.directory)]
    child_directory = _fork(run, seqs[4], 4)
    own = list(read_journal(child_directory))
    assert [r.entry for r in own[:-1]] == parents[: seqs[4]]
    linked = [p for p in (child_directory / "journal").iterdir() if p.stat().st_nlink > 1]
    assert linked
    history = fold(own)
    assert (history.run.run, history.run.turn, history.run.status) == ("fork-1", 4, "forked")
    assert history.run.workspace_id == "w2"
    assert history.run.root == history.turn(4).root
    assert set(history.run.labels) == {"l1", "l2", "l3"}
    run.close()
    shutil.rmtree(run.directory)
    child = make_run("fork-1")
    child.open()
    child.turn(5)
    child.close()
    grandchild = _fork(child, child.journal.seq, 5, "fork-2")
    shutil.rmtree(child_directory)
    records = list(read_journal(grandchild))
    assert [r.entry.seq for r in records] == list(range(1, len(records) + 1))
    assert fold(records).run.turn == 5


def test_a_fork_drops_turns_that_had_opened_behind_its_place(run):
    run.open()
    run.start()
    run.turn(1)
    run.journal.append(TurnOpened(2, 1), turn=2)
    run.journal.append(Request(CallId("0", "think", 2), b"", NOTHING), turn=2)
    history = fold(read_journal(_fork(run, run.journal.seq, 1)))
    assert history.run.turn == 1
    assert history.turn(2) is None


def test_a_fork_knows_what_of_its_parent_was_thinned(run):
    run.open()
    run.start()
    for n in range(1, 4):
        run.turn(n)
    thin_turns(run.directory, [1, 3])
    child = _fork(run, run.journal.seq, 2)
    roots = [i for i, kind in references(child) if kind is ObjectKind.ROOT]
    history = fold(read_journal(child))
    assert history.turn(1).root not in roots
    assert history.turn(2).root in roots


def test_a_fork_of_what_is_not_there_or_over_another_is_refused(run):
    run.open()
    run.start()
    for upto in (0, 99):
        with pytest.raises(NotFound):
            _fork(run, upto, 0)
    _fork(run, 1, 0)
    with pytest.raises(UsageError):
        _fork(run, 1, 0)
    assert len(os.listdir(run_dir(run.home, "fork-1"))) == 1


def test_references_name_roots_and_long_values_and_leave_out_thinned_turns(run):
    run.open()
    run.start()
    run.turn(1, root=b"1" * 32)
    run.turn(2, root=b"2" * 32)
    run.turn(3, root=b"1" * 32)
    call = CallId("0", "sh", 9)
    long = Payload(content=Content(1, 0, (b"a" * 32, b"b" * 32)))
    deep = Payload(content=Content(1, 2, (b"l" * 32,)))
    run.journal.append(Intent(call, b"", long), turn=3)
    run.journal.append(Result(call, 1.0, NOTHING, Failure("E", "m", deep)), turn=3)
    run.journal.append(
        Request(CallId("0", "m", 0), b"", NOTHING, Content(1, 0, (b"m" * 32,))), turn=3
    )
    everything = set(references(run.directory))
    assert {
        (b"0".replace(b"0", b"\0") * 32, ObjectKind.ROOT),
        (b"2" * 32, ObjectKind.ROOT),
    } < everything
    assert {(b"a" * 32, ObjectKind.DATA), (b"b" * 32, ObjectKind.DATA)} < everything
    assert {(b"l" * 32, ObjectKind.LIST), (b"m" * 32, ObjectKind.DATA)} < everything
    thin_turns(run.directory, [1, 2])
    kept = set(references(run.directory))
    assert everything - kept == {(b"2" * 32, ObjectKind.ROOT)}
    assert set(references(run.directory, thinned=True)) == everything


_NUMBERS = st.sampled_from([0, 1, 2, 3, 5, -1, 40, 1 << 40, -(1 << 63), (1 << 64) - 1])
_CALLS = st.builds(CallId, st.just("0"), st.sampled_from("ab"), st.integers(0, 1))
_ROOTS = st.sampled_from([b"r" * 32, b"s" * 32, b"short", b""])
_BODIES = st.one_of(
    st.builds(TurnOpened, _NUMBERS, _NUMBERS),
    st.builds(Request, _CALLS, st.just(b""), st.just(NOTHING)),
    st.builds(Response, _CALLS, st.floats(), tokens_in=_NUMBERS, cost_usd=st.floats()),
    st.builds(Intent, _CALLS, st.just(b""), st.just(NOTHING)),
    st.builds(Result, _CALLS, st.floats()),
    st.builds(Superseded, _NUMBERS),
    st.builds(Captured, _NUMBERS, _NUMBERS, _ROOTS, _NUMBERS),
    st.builds(Checkpoint, _NUMBERS, _NUMBERS, _ROOTS, _NUMBERS, bytes_stored=_NUMBERS),
    st.builds(Gated, _NUMBERS, st.floats()),
    st.builds(Exposed, _NUMBERS, st.text(max_size=3)),
    st.builds(RolledBack, _NUMBERS, _ROOTS),
    st.builds(Labelled, _NUMBERS, st.text(max_size=3), _NUMBERS),
    st.builds(Resumed, st.text(max_size=3), _NUMBERS, _NUMBERS, _NUMBERS),
    st.builds(Ended, st.text(max_size=3), st.floats()),
    st.builds(
        Forked, st.text(max_size=3), st.just("f"), st.just(b""), st.just("w"),
        st.builds(Lineage, st.just("f"), seq=_NUMBERS), _NUMBERS,
    ),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(bodies=st.lists(st.tuples(_BODIES, st.integers(0, 6)), max_size=25))
def test_entries_in_any_order_give_an_answer_or_damage_and_the_index_agrees(
    tmp_path_factory, bodies
):
    home = tmp_path_factory.mktemp("home")
    directory = run_dir(home, "r-1")
    with (
        Lease.acquire(directory) as lease,
        Journal.open(directory, lease, create=True) as journal,
        RunIndex.open(home) as index,
    ):
        for body, turn in bodies:
            journal.append(body, turn=turn)
            index.refresh()
        step_by_step = [(row.view, index.turns(row.run)) for row in index.runs()]
        index.rebuild()
        at_once = [(row.view, index.turns(row.run)) for row in index.runs()]
    assert repr(at_once) == repr(step_by_step)  # by repr: a NaN is not equal to itself
