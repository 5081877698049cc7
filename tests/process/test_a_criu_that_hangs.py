"""A CRIU that hangs holds up nobody: files are captured in time, the loop goes on, it is named."""

from __future__ import annotations

import shlex

import pytest

from crabrt.process.finding import NOT_YET

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

COUNTED = "[1, 4, 9]\n"
GATE_MS = 1500


def hanging(agent, criu, tmp_path, condition: str, how: str) -> None:
    """Give `agent` a CRIU that is the real one until `condition` of a shell holds."""
    fake, tried = tmp_path / "fake", tmp_path / "tried"
    fake.write_text(
        "#!/bin/sh\n"
        f"real={shlex.quote(str(criu.program))}\n"
        f"if {condition}; then echo >> {shlex.quote(str(tried))}; {how}; fi\n"
        'exec $real "$@"\n'
    )
    fake.chmod(0o700)
    agent._env |= {"CRAB_CRIU": str(fake), "CRAB_GATE_LIMIT_MS": str(GATE_MS)}


DUMPS_THE_SERVER = '[ "$1" = dump ] && grep -q address "/proc/$3/cmdline"'
HANGS = {
    "sleeps": "exec sleep 1000",
    "stands still": '$real "$@" & sleep 0.01; kill -STOP $!; wait; exec sleep 1000',
}


@pytest.mark.parametrize("how", HANGS.values(), ids=HANGS)
def test_files_of_every_turn_are_captured_and_the_server_goes_on(agent, criu, tmp_path, how):
    hanging(agent, criu, tmp_path, DUMPS_THE_SERVER, how)
    assert succeeded(agent.run(7)) == COUNTED
    turns = agent.turns()
    assert len((tmp_path / "tried").read_text()) in {1, 2}  # it is not tried at every turn
    for turn in turns:
        assert turn.restorable, turn.unprotected
        assert "CRIU was not done after" in " ".join(turn.unprotected), turn.unprotected
        assert turn.exposed_ms is None or turn.exposed_ms < 2 * GATE_MS
    assert agent.server_lives
    assert agent.add(0) == 9
    succeeded(agent.crab("restore", "last@3", "--files-only"))
    assert (agent.ws / "log").read_text() == "[1]\n"
    assert not agent.spools


def test_one_that_does_not_even_tell_its_version_holds_up_nobody(agent, criu, tmp_path):
    hanging(agent, criu, tmp_path, "true", "exec sleep 1000")
    assert succeeded(agent.run(7)) == COUNTED
    turns = agent.turns()
    assert all(turn.restorable for turn in turns)
    assert NOT_YET in turns[0].unprotected[0]
    assert agent.server_lives
