"""After a power cut, what was promised must be there; what was not is mentioned, and no damage."""

import os

import pytest

from crabrt.core.content import Content
from crabrt.core.entries import CallId, Captured, Checkpoint, Ended, Payload, Request
from crabrt.core.ids import ObjectId, object_id
from crabrt.operations.checking import check_everything
from crabrt.store import Store

LOST = ObjectId(object_id(b"it was in a pack that nobody had synced"))
ROOT = ObjectId(os.urandom(32))


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    yield run
    if not run.journal.inert:
        run.close()


def asks(run, number=0):
    """A model call whose messages are in the store, or were."""
    call = CallId("0", "think", 100 + number)
    messages = Content(1, 0, (LOST,))
    return run.journal.append(
        Request(call, b"d", Payload(b"x"), messages, "scripted"), turn=run.turns
    )


def checked(run):
    with Store.open(run.home) as store:
        return check_everything(store)


@pytest.fixture
def power_cut(monkeypatch):
    """The machine is started again."""

    def cut():
        for module in ("journal.writing", "operations.checking"):
            monkeypatch.setattr(f"crabrt.{module}.boot_id", lambda: "the next boot")

    return cut


def test_what_no_checkpoint_covers_is_mentioned_and_no_damage(run, power_cut):
    asks(run)
    run.journal.append(Captured(run.turns, 0, ROOT, run.journal.seq), turn=run.turns)
    run.close()
    power_cut()
    health = checked(run)
    assert (health.troubles, health.affected) == ((), ())
    assert {one.where for one in health.not_durable} == {LOST.hex(), ROOT.hex()}
    assert set(health.lost) == {run.run, f"{run.run}@{run.turns}"}


def test_without_a_power_cut_it_is_damage(run):
    asks(run)
    run.close()
    health = checked(run)
    assert [one.where for one in health.troubles] == [LOST.hex()]
    assert health.affected == (run.run,)
    assert health.not_durable == ()


def test_what_a_checkpoint_of_its_boot_covers_is_damage(run, power_cut):
    asks(run)
    run.checkpoint(run.turns)
    run.close()
    power_cut()
    assert [one.where for one in checked(run).troubles] == [LOST.hex()]


def test_a_checkpoint_covers_what_was_stored_before_its_capture_and_not_what_came_while_it_synced(
    run, power_cut
):
    before = run.journal.seq
    asks(run)
    run.journal.append(Captured(run.turns, 0, run.root, before), turn=run.turns)
    run.journal.append(Checkpoint(run.turns, 0, run.root, before), turn=run.turns)
    run.journal.sync()
    power_cut()
    assert [one.where for one in checked(run).troubles] == [LOST.hex()]


def test_what_came_between_the_capture_and_the_checkpoint_is_not_covered(run, power_cut):
    before = run.journal.seq
    run.journal.append(Captured(run.turns, 0, run.root, before), turn=run.turns)
    asks(run)
    run.journal.append(Checkpoint(run.turns, 0, run.root, before), turn=run.turns)
    run.journal.sync()
    power_cut()
    health = checked(run)
    assert health.troubles == ()
    assert [one.where for one in health.not_durable] == [LOST.hex()]


def test_a_checkpoints_own_root_is_promised(run, power_cut):
    run.journal.append(Checkpoint(run.turns, 0, ROOT, run.journal.seq), turn=run.turns)
    run.journal.sync()
    power_cut()
    health = checked(run)
    assert [one.where for one in health.troubles] == [ROOT.hex()]
    assert health.affected == (f"{run.run}@{run.turns}",)


def test_a_checkpoint_of_the_next_boot_does_not_vouch_for_what_the_power_cut_took(
    run, power_cut, monkeypatch
):
    asks(run)
    run.journal.sync()
    power_cut()
    monkeypatch.setattr(run.journal, "_boot", "the next boot")
    run.checkpoint(run.turns)
    monkeypatch.setattr("crabrt.operations.checking.boot_id", lambda: "the boot after that")
    health = checked(run)
    assert health.troubles == ()
    assert [one.where for one in health.not_durable] == [LOST.hex()]


@pytest.mark.parametrize("closed", [True, False])
def test_a_run_that_ended_and_was_closed_is_promised_as_a_whole(run, power_cut, closed):
    asks(run)
    run.journal.append(Ended("done", 1.0, Payload(content=Content(1, 0, (LOST,)))), turn=run.turns)
    if closed:
        run.close()
    power_cut()
    health = checked(run)
    found = health.troubles if closed else health.not_durable
    assert [one.where for one in found] == [LOST.hex()]
    assert bool(health.troubles) == closed


def test_what_is_promised_elsewhere_is_damage_for_everybody(run, power_cut):
    asks(run, 1)
    run.checkpoint(run.turns)
    asks(run, 2)
    run.journal.sync()
    power_cut()
    health = checked(run)
    assert [one.where for one in health.troubles] == [LOST.hex()]
    assert (health.not_durable, health.lost) == ((), ())
