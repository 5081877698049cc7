"""A killed run's spool stays while a resume needs it, is told of, and goes after that."""

from __future__ import annotations

import json
import os
import signal

import pytest

from crabrt.errors import DamagedJournal
from crabrt.journal import Lease, run_dir
from crabrt.operations import spools
from crabrt.operations.spools import drop_unneeded, left_behind
from crabrt.process.spool import Spool

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

# Of turn 2, in which the server counted.
CAPTURED = "checkpoint.captured:3"
COMMITTED = "checkpoint.committed:3"


def told(agent, verb: str, *words: str):
    return json.loads(succeeded(agent.crab(verb, "--json", *words)))["data"]


def test_gc_keeps_what_a_resume_needs_and_says_so(agent, until):
    agent.run(6, kill_at=CAPTURED)
    os.kill(agent.server, signal.SIGKILL)
    until(lambda: not agent.server_lives)
    waiting = told(agent, "du")["spools"]  # a slow machine has not stored those before either
    assert waiting
    assert all(one["needed"] for one in waiting)
    size = sum(one["size_bytes"] for one in waiting)
    assert size > 100_000
    assert f"`crab resume {agent.last}` goes on from them" in succeeded(agent.crab("gc"))
    assert told(agent, "gc")["spools_kept_bytes"] == size
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert not agent.spools
    assert told(agent, "du")["spools"] == []


def test_gc_drops_what_is_in_the_store(agent):
    agent.run(6, kill_at=COMMITTED)
    size = told(agent, "gc", "--dry-run")["spools_removed_bytes"]
    assert size > 100_000
    assert agent.spools
    assert "images that killed runs left" in succeeded(agent.crab("du"))
    assert told(agent, "gc")["spools_removed_bytes"] == size
    assert all(one["needed"] for one in told(agent, "du")["spools"])  # of turns after that one
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert not agent.spools


def test_gc_drops_what_a_killed_restore_left(agent):
    succeeded(agent.run(4))
    agent.crab("restore", "last@2", kill_at="restore.begun:1")
    assert agent.spools
    assert told(agent, "gc")["spools_removed_bytes"] > 0
    assert not agent.spools
    succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 1


def test_rm_drops_all_of_it(agent):
    agent.run(6, kill_at=CAPTURED)
    assert agent.spools
    succeeded(agent.crab("rm", "last", "--yes"))
    assert not agent.spools


def test_what_cannot_be_told_is_kept(agent, monkeypatch):
    agent.run(6, kill_at=COMMITTED)

    def unreadable(_):
        raise DamagedJournal("the hash chain is broken")
        yield

    monkeypatch.setattr(spools, "read_journal", unreadable)
    assert all(one.is_needed for one in left_behind(agent.home))
    assert drop_unneeded(agent.home) == []
    assert agent.spools
    Spool(agent.home, agent.last).clear()


def test_what_a_live_run_has_there_is_left_alone(agent):
    agent.run(6, kill_at=COMMITTED)
    with Lease.acquire(run_dir(agent.home, agent.last)):
        assert left_behind(agent.home) == []
        assert drop_unneeded(agent.home) == []
        assert agent.spools
    assert drop_unneeded(agent.home)
    assert all(one.is_needed for one in left_behind(agent.home))
