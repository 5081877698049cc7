"""What led out of processes that a restore brings back is closed, and told; they answer anew."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

PROGRAM = Path(__file__).with_name("keeping.py")


@pytest.fixture
def keeper(tmp_path, criu):
    made = Agent(tmp_path, criu.program, PROGRAM)
    yield made
    made.close()


def test_a_restore_closes_the_connection_of_the_loop_and_says_so(keeper):
    assert succeeded(keeper.run()) == "[1, 11, 111] 1\n"
    done = json.loads(succeeded(keeper.crab("restore", "last@2", "--json")))["data"]
    (severed,) = done["processes_severed"]
    (end,) = severed["connections_closed"]
    assert end.startswith("tcp 127.0.0.1:")
    assert severed["lost"] == []
    assert severed["pid"] == keeper.server
    assert keeper.add(1000) == 1001
    shown = succeeded(keeper.crab("restore", "last@3"))
    assert "brought back: " in shown
    assert f": connections closed: {end}\n" in shown
    assert keeper.add(1000) == 1011
    # Nobody was connected when this one was put aside.
    undone = json.loads(succeeded(keeper.crab("undo", str(keeper.ws), "--json")))["data"]
    assert undone["processes_severed"] == []
    assert keeper.add(0) == 1001


def test_a_pipe_from_somebody_else_is_told_by_a_restore_and_by_its_undo(agent):
    reads, writes = os.pipe()
    agent._env["STDIN"] = f"/proc/{os.getpid()}/fd/{reads}"
    try:
        succeeded(agent.run(4))
        lost = ["it reads from a pipe whose other end is not its own"]
        undo = ("undo", str(agent.ws))
        # The first of them puts aside who has the pipe, and brings back who has lost it.
        for command, expected in ((("restore", "last@2"), lost), (undo, lost), (undo, [])):
            done = json.loads(succeeded(agent.crab(*command, "--json")))["data"]
            told = [what for one in done["processes_severed"] for what in one["lost"]]
            assert told == expected
        shown = succeeded(agent.crab("restore", "last@2"))
        assert ": lost: it reads from a pipe" in shown
    finally:
        os.close(reads)
        os.close(writes)


def test_a_restore_does_not_hang_what_somebody_was_connected_with(keeper):
    succeeded(keeper.run())
    port = int((keeper.ws / "address").read_text().split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"5")
        assert client.recv(100) == b"116"
        succeeded(keeper.crab("restore", "last@2"))
        undone = json.loads(succeeded(keeper.crab("undo", str(keeper.ws), "--json")))["data"]
        (severed,) = undone["processes_severed"]
        host, number = client.getsockname()
        assert severed["connections_closed"] == [f"tcp {host}:{number}"]
        assert keeper.add(0) == 116  # while that client is still there
        assert client.recv(100) == b""


def test_a_loop_that_goes_back_finds_its_connection_closed_and_is_answered_anew(keeper):
    assert succeeded(keeper.run("back")) == "[1, 11, 101] 2\n"
    (note,) = keeper.notes("severed")
    assert "connections closed: tcp 127.0.0.1:" in note


def test_a_turn_says_which_files_and_connections_processes_hold(keeper):
    succeeded(keeper.run())
    shown = json.loads(succeeded(keeper.crab("show", "last@2", "--json")))["data"]
    (server,) = shown["alive"]
    assert server["files"] == [{"path": "log"}]
    (end,) = server["connections"]
    assert end.startswith("tcp 127.0.0.1:")
    assert server["unlisted"] == 0
    lines = succeeded(keeper.crab("show", "last@2")).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("alive "))
    assert lines[at + 1].split() == ["holds", "log"]
    assert lines[at + 2].split() == ["talks", "to", *end.split()]
