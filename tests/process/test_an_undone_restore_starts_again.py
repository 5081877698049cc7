"""What an undo starts again is a run's, whatever its environment said."""

from __future__ import annotations

from pathlib import Path

import pytest

from .counted_runs import succeeded

pytestmark = pytest.mark.root


def test_who_named_no_run_names_one_when_an_undo_starts_it(agent, until):
    """Else nobody would know it, were the undo killed before it could say what it started."""
    agent._env |= {"EMPTIED": "1", "CRAB_CRIU": "/nowhere/criu"}
    succeeded(agent.run(4))
    server = agent.server
    assert b"CRAB_RUN" not in Path(f"/proc/{server}/environ").read_bytes()
    agent.crab("restore", "last@0")
    assert not (agent.ws / "address").exists()
    agent.crab("undo", str(agent.ws), "--respawn")
    until(lambda: agent.server != server)
    agent._note()  # to be ended with the test
    assert f"CRAB_RUN={agent.last}".encode() in Path(f"/proc/{agent.server}/environ").read_bytes()
    assert agent.add(2) == 2
