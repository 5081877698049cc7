"""Processes that no image can be had of, or that change while one is taken: each by its reason."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from crabrt.process import table

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


@pytest.fixture
def odd(tmp_path, criu):
    made = Agent(tmp_path, criu.program, Path(__file__).with_name("odd.py"))
    yield made
    with contextlib.suppress(OSError, ValueError):
        top = made.server
        for pid in [one.pid for one in table.descendants(top)] + [top]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_one_that_the_loop_feeds_through_a_pipe_is_named(odd):
    succeeded(odd.run("pipe"))
    turns = odd.turns()
    assert all("reads from a pipe" in turn.unprotected[0] for turn in turns)
    assert not odd.spools


@pytest.mark.parametrize("what", ["forks", "joined", "zombie"])
def test_one_that_never_rests_does_not_stop_the_loop(odd, what):
    succeeded(odd.run(what))
    turns = odd.turns()
    assert len(turns) == 4
    assert all(turn.processes or turn.unprotected for turn in turns)
    assert odd.server_lives
    done = odd.crab("restore", "last@2", "--force")
    assert done.returncode in {0, 3}, done.stdout + done.stderr
    assert (odd.ws / "file").read_text() == "1"


def test_one_that_ended_before_its_image_is_nothing_to_warn_of(odd):
    succeeded(odd.run("gone"))
    turns = odd.turns()
    reasons = [reason for turn in turns for reason in turn.unprotected]
    assert not any("no such process" in reason for reason in reasons)
    assert turns[-1].unprotected == ()


OBSTACLES = {
    "uring": "io_uring",
    "socket": "Unix socket",
    "fuse": "device",
    "tun": "tun",
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_one_that_cannot_be_imaged_is_named_in_every_turn_and_files_come_back(odd, tmp_path, what):
    accepted: list[tuple[socket.socket, object]] = []
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "service"))
        service.listen()
        threading.Thread(target=lambda: accepted.append(service.accept()), daemon=True).start()
        odd._env["ODD_SOCKET"] = str(tmp_path / "service")
        succeeded(odd.run(what))
        turns = odd.turns()
        assert len(turns) == 4
        assert "processes" in turns[0].verdict
        assert "new" in " ".join(turns[0].evidence)
        for turn in turns:
            assert turn.restorable
            assert "has no image" in turn.unprotected[0]
            assert OBSTACLES[what] in " ".join(turn.unprotected)
        assert odd.server_lives
        done = odd.crab("restore", "last@2", "--force")
        assert done.returncode == 3
        assert (odd.ws / "file").read_text() == "1"
    for client, _ in accepted:
        client.close()
    assert bool(accepted) == (what == "socket")
    assert not odd.spools


def test_one_that_became_another_user_comes_back_as_that_one(odd, until):
    succeeded(odd.run("another"))
    turns = odd.turns()
    assert [turn.unprotected for turn in turns] == [()] * 4
    server = odd.server
    os.kill(server, signal.SIGKILL)
    until(lambda: not odd.server_lives)
    succeeded(odd.crab("restore", "last@2", "--force"))
    assert Path(f"/proc/{server}").stat().st_uid == 65534


def test_a_big_one_comes_back(odd):
    odd._env["CRAB_GATE_LIMIT_MS"] = "60000"  # however slow the machine
    succeeded(odd.run("big"))
    turns = odd.turns()
    assert [turn.unprotected for turn in turns] == [()] * 4
    assert not odd.spools
    server = odd.server
    succeeded(odd.crab("restore", "last@2", "--force"))
    assert table.look(server) is not None
