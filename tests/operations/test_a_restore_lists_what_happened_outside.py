"""What a restore cannot bring back: calls that left the machine since, or may have."""

import pytest

from crabrt.core.entries import CallId, Checkpoint, Intent, Observed, Payload, Result, TurnOpened
from crabrt.core.ids import RunId, object_id
from crabrt.core.verdicts import Effect, Guess, Likely, Prior, Verdict
from crabrt.journal import Journal, Lease, RunIndex, run_dir
from crabrt.operations.effects import OutsideEffect, effects_since
from crabrt.operations.forking import fork_in_place
from crabrt.operations.targets import resolve

PUSH = Guess(Likely.EXTERNAL, "git push: leaves the machine")
PUSHED = "external: sh, git push: leaves the machine (guess)"
SEEN = "external: connected to 203.0.113.9:443 (python3) (seen)"


@pytest.fixture
def run(builder, home, workspace):
    """Three turns that stay here."""
    run = builder.small_run(home, workspace)
    yield run
    run.close()


def since(run, target):
    with RunIndex.open(run.home) as index:
        index.refresh()
        return list(effects_since(index, resolve(index, target)))


def turn_of(run, *calls, effects=(), evidence=()):
    """A turn of several calls (name, what each was taken for), observed so."""
    run.turns += 1
    number = run.turns
    run.journal.append(TurnOpened(number, number - 1), turn=number)
    places = []
    for name, guess in calls:
        call = CallId("0", name, 100 * number + len(places))
        intent = Intent(call, object_id(b"a"), Payload(), guess=guess)
        places.append(run.journal.append(intent, turn=number))
        run.journal.append(Result(call, 1.0), turn=number)
    run.journal.append(Observed(number, Verdict(effects, evidence)), turn=number)
    at = run.journal.seq
    run.journal.append(Checkpoint(number, 0, run.root, at), turn=number)
    return places


def test_a_call_that_was_taken_for_external_is_listed_with_what_it_was_taken_for(run):
    run.turn(None, guess=PUSH, evidence=(PUSHED,))
    push = OutsideEffect(run.run, 4, "sh", True, "guess", "git push: leaves the machine")
    assert since(run, "last@1") == since(run, "last@3") == [push]
    assert since(run, "last@4") == []


def test_a_call_of_which_nothing_is_known_is_listed_if_its_turn_was_seen_to_connect(run):
    calls = [
        ("execute", Guess()),
        ("look", Guess(Likely.NONE, "reads only: cat")),
        ("sh", Guess(Likely.FILES, "pip install: writes files")),
        ("old", None),
    ]
    turn_of(run, *calls, effects=(Effect.EXTERNAL,), evidence=(SEEN,))
    found = since(run, "last@1")
    assert [(one.tool, one.known) for one in found] == [("execute", "seen"), ("old", "seen")]
    assert {one.why for one in found} == {"connected to 203.0.113.9:443 (python3)"}


def test_a_turn_that_was_seen_to_connect_is_never_passed_over(run):
    turn_of(
        run, ("look", Guess(Likely.NONE, "reads only: cat")),
        effects=(Effect.EXTERNAL,), evidence=(SEEN,),
    )  # fmt: skip
    assert [(one.tool, one.known) for one in since(run, "last@1")] == [("look", "seen")]


def test_what_a_guess_explains_is_not_laid_at_others_doors(run):
    evidence = (PUSHED, "connected to 203.0.113.9:443 (git)")
    turn_of(run, ("execute", None), ("sh", PUSH), effects=(Effect.EXTERNAL,), evidence=evidence)
    assert [(one.tool, one.known) for one in since(run, "last@1")] == [("sh", "guess")]


def test_a_call_that_was_seen_to_send_nothing_is_not_listed(run):
    cleared = f"{PUSHED.removeprefix('external: ')}, but nothing was sent"
    turn_of(run, ("sh", PUSH), evidence=(cleared,))
    assert since(run, "last@1") == []


def test_a_call_that_was_taken_for_external_is_listed_before_any_verdict(run):
    """The loop was killed in it."""
    run.turns += 1
    run.journal.append(TurnOpened(4, 3), turn=4)
    intent = Intent(CallId("0", "sh", 4), object_id(b"a"), Payload(), guess=PUSH)
    run.journal.append(intent, turn=4)
    assert since(run, "last@3") == [OutsideEffect(run.run, 4, "sh", None, "guess")]


def test_what_comes_before_an_inner_point_is_not_since_then(run):
    first, second = turn_of(
        run, ("sh", PUSH), ("sh", PUSH), effects=(Effect.EXTERNAL,), evidence=(PUSHED,)
    )
    run.journal.append(Checkpoint(4, 1, run.root, first + 1), turn=4)
    assert second > first + 1
    assert len(since(run, "last@3")) == 2
    assert len(since(run, "last@4.1")) == 1


def test_a_fork_shares_the_world_with_guesses_too(builder, home, run, tmp_path):
    (tmp_path / "beside").mkdir()
    other = builder.RunBuilder(home, tmp_path / "beside", "other", family=run.run, parent=run.run)
    try:
        other.turn(None, guess=PUSH, evidence=(PUSHED,))
        other.turn(None, tool="pay", prior=Prior.EXTERNAL)
    finally:
        other.close()
    found = since(run, f"{run.run}@1")
    assert [(one.run, one.tool, one.known) for one in found] == [
        (other.run, "sh", "guess"),
        (other.run, "pay", "declared"),
    ]


def paid(run, target):
    """Which turn of which run pays after `target`."""
    return [(one.run, one.turn) for one in since(run, target)]


def pay_in(home, run, turn):
    """A turn of `run`, which nobody works on, that pays."""
    with Lease.acquire(run_dir(home, RunId(run))) as lease:
        journal = Journal.open(run_dir(home, RunId(run)), lease)
        journal.append(TurnOpened(turn, turn - 1), turn=turn)
        call = CallId("0", "pay", turn - 1)
        journal.append(Intent(call, object_id(b"a"), Payload(), Prior.EXTERNAL), turn=turn)
        journal.append(Result(call, 1.0), turn=turn)
        journal.close()


def test_what_a_fork_shares_with_its_original_is_listed_once(run, home):
    for _ in range(3):
        turn_of(run, ("pay", PUSH), effects=(Effect.EXTERNAL,), evidence=(PUSHED,))
    fork = fork_in_place(run.store, f"{run.run}@5")
    assert paid(run, f"{fork}@5") == [(run.run, 6)]
    assert paid(run, f"{fork}@4") == [(fork, 5), (run.run, 6)]
    assert paid(run, f"{fork}@1") == [(fork, 4), (fork, 5), (run.run, 6)]
    assert paid(run, f"{run.run}@5") == [(run.run, 6)]
    assert paid(run, f"{run.run}@4") == [(run.run, 5), (run.run, 6)]


def test_a_fork_of_a_fork_lists_once_what_all_three_share(run, home):
    for _ in range(3):
        turn_of(run, ("pay", PUSH), effects=(Effect.EXTERNAL,), evidence=(PUSHED,))
    fork = fork_in_place(run.store, f"{run.run}@5")
    last = fork_in_place(run.store, f"{fork}@4")
    pay_in(home, fork, 6)
    pay_in(home, last, 5)
    assert sorted(paid(run, f"{last}@4")) == sorted(
        [(last, 5), (run.run, 5), (run.run, 6), (fork, 6)]
    )
    assert sorted(paid(run, f"{last}@3")) == sorted([*paid(run, f"{last}@4"), (last, 4)])
    assert sorted(paid(run, f"{fork}@5")) == sorted([(run.run, 6), (fork, 6), (last, 5)])


def test_what_a_child_did_within_the_turn_is_not_since_then(builder, run, home, workspace):
    run.turns += 1
    run.journal.append(TurnOpened(4, 3), turn=4)
    call = CallId("0", "ask_another", 3)
    run.journal.append(Intent(call, object_id(b"a"), Payload()), turn=4)
    child = builder.RunBuilder(home, workspace, "child", family=run.run, parent=run.run)
    child.turn(None, tool="pay", prior=Prior.EXTERNAL)
    child.close()
    run.journal.append(Result(call, 60_000.0), turn=4)  # longer than what happened in it
    run.checkpoint(4)
    assert paid(run, f"{run.run}@3") == [(child.run, 1)]
    assert paid(run, f"{run.run}@4") == []
