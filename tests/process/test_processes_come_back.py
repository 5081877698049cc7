"""Processes come back with a run: restored, undone, rolled back, resumed. With real CRIU."""

from __future__ import annotations

import signal

import pytest

from crabrt.process import table

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


def test_a_server_is_imaged_when_it_ran_and_costs_nothing_while_it_sleeps(agent):
    assert succeeded(agent.run(6)) == "[1, 4, 9]\n"
    turns = agent.turns()
    assert [turn.unprotected for turn in turns] == [()] * 6
    assert turns[0].verdict == ("files", "processes")
    assert turns[0].frozen_ms > 0
    assert "processes" in turns[1].verdict  # it counted
    assert all(turn.processes for turn in turns)


def test_a_restore_brings_the_server_back_as_it_was_and_undo_as_it_is(agent):
    succeeded(agent.run(6))
    assert agent.add(100) == 109
    first = agent.server
    succeeded(agent.crab("restore", "last@2"))
    assert agent.server == first  # the number it had
    assert agent.add(1000) == 1001
    shown = succeeded(agent.crab("undo", str(agent.ws)))
    assert "ended: " in shown
    assert "brought back: " in shown
    assert agent.add(0) == 109
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 1001


def test_a_restore_to_before_the_server_ends_it(agent):
    succeeded(agent.run(4))
    server = agent.server
    succeeded(agent.crab("restore", "last@0"))
    assert table.look(server) is None or table.look(server).ended
    assert not (agent.ws / "address").exists()
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 4


@pytest.mark.parametrize("how", ["loop", "all"])
@pytest.mark.parametrize("turn", [3, 4])
def test_a_killed_run_goes_on_with_its_server(agent, how, turn):
    killed = agent.run(6, turn, how)
    assert killed.returncode == -signal.SIGKILL
    server = agent.server
    assert (table.look(server) is None or table.look(server).ended) == (how == "all")
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert agent.add(0) == 9
    assert bool(agent.notes("revived")) == (how == "all")


def test_files_only_leaves_processes_alone(agent):
    succeeded(agent.run(4))
    succeeded(agent.crab("restore", "last@2", "--files-only"))
    assert agent.add(0) == 4


def test_who_is_not_to_be_looked_after_is_left_alone(agent):
    succeeded(agent.run(4))
    agent._env["CRAB_PROCESSES"] = "off"
    assert "ended" not in succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 4


def test_a_dry_run_touches_nobody(agent):
    succeeded(agent.run(4))
    shown = succeeded(agent.crab("restore", "last@2", "--dry-run"))
    assert "would be ended: " in shown
    assert "would be brought back: " in shown
    assert agent.add(0) == 4


def test_without_images_the_server_is_named_and_the_loop_goes_on(agent, tmp_path):
    agent._env["CRAB_CRIU"] = str(tmp_path / "nothing")
    assert succeeded(agent.run(4)) == "[1, 4]\n"
    assert all("has no image" in turn.unprotected[0] for turn in agent.turns())
    done = agent.crab("restore", "last@2")
    assert done.returncode == 3
    assert "processes that are not back" in done.stdout
    assert table.look(agent.server) is None


def test_a_server_that_came_back_and_ended_is_no_zombie(agent):
    killed = agent.run(6, 4, "all", "ends")
    assert killed.returncode == -signal.SIGKILL
    assert succeeded(agent.run(6, 99, "all", "ends", resume="last")) == "[1, 4]\n[]\n"
