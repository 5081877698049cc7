"""``--expect`` where processes are restored with the files: they go on, and it holds."""

from __future__ import annotations

import os
import re
import signal
import socket

import pytest

from crabrt.core.processes import LastingProcess, ProcessTree
from crabrt.process.obstacles import obstacle

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


def preview(agent, *words):
    shown = succeeded(agent.crab(*words, "--dry-run"))
    return re.search(r"--expect ([0-9a-f]{16})$", shown, re.MULTILINE)[1]


def test_who_goes_on_working_meanwhile_is_still_who_was_listed(agent):
    succeeded(agent.run(4))
    seen = preview(agent, "restore", "last@2")
    assert agent.add(10) == 14
    succeeded(agent.crab("restore", "last@2", "--expect", seen))
    assert agent.add(0) == 1
    undoing = ("undo", str(agent.ws))
    seen = preview(agent, *undoing)
    assert agent.add(10) == 11
    succeeded(agent.crab(*undoing, "--expect", seen))
    assert agent.add(0) == 14


def test_another_restore_since_is_another_list(agent):
    succeeded(agent.run(4))
    seen = preview(agent, "restore", "last@0")
    succeeded(agent.crab("restore", "last@2"))
    refused = agent.crab("restore", "last@0", "--expect", seen)
    assert refused.returncode == 5
    assert "not what was expected; nothing was touched" in refused.stderr
    assert agent.add(0) == 1


def test_who_has_its_port_is_named_before_and_after(agent, until):
    succeeded(agent.run(4))
    port = int((agent.ws / "address").read_text().split()[1])
    os.kill(agent.server, signal.SIGKILL)
    until(lambda: not agent.server_lives)
    taken = f"tcp 127.0.0.1:{port} is taken, by "
    with socket.create_server(("127.0.0.1", port)):
        shown = succeeded(agent.crab("restore", "last@2", "--dry-run"))
        assert "processes that would not come back, as things stand:" in shown
        assert taken in shown
        assert f"(pid {os.getpid()})" in shown
        assert "would be brought back" not in shown
        done = agent.crab("restore", "last@2")
        assert done.returncode == 3
        assert taken in done.stdout
        status = agent.crab("status", str(agent.ws)).stdout
        assert "not back     python" in status
        assert f"(pid {agent.server}, tcp 127.0.0.1:{port}): {taken}" in " ".join(status.split())
        assert f"(pid {os.getpid()})" in done.stdout
    assert "would be brought back" in succeeded(agent.crab("restore", "last@2", "--dry-run"))
    succeeded(agent.crab("restore", "last@2"))
    assert "not back" not in agent.crab("status", str(agent.ws)).stdout


def lasting(pid, *listens):
    return LastingProcess(pid, 1, 0, (b"x",), b"/", listens)


def test_whoever_is_to_end_is_in_nobodys_way():
    mine = os.getpid()
    with socket.create_server(("0.0.0.0", 0)) as server:
        where = f"tcp 127.0.0.1:{server.getsockname()[1]}"
        free = ProcessTree((lasting(0, where),), imaged=True)
        assert obstacle(free, ()).startswith(f"{where} is taken, by ")
        assert not obstacle(free, {mine})
        own = ProcessTree((lasting(0, where),), imaged=True, network=True)
        assert not obstacle(own, ())
    numbered = ProcessTree((lasting(mine),), imaged=True)
    assert obstacle(numbered, ()).startswith(f"the process number {mine} is taken, by ")
    assert not obstacle(numbered, {mine})
    assert not obstacle(ProcessTree((lasting(mine),), imaged=True, namespace=True), ())


def test_a_process_that_lives_may_be_who_changed_what_is_in_the_way(agent, until):
    succeeded(agent.run(4))
    (agent.ws / "log").write_text("by whom?\n")
    refused = agent.crab("restore", "last@2")
    assert refused.returncode == 5
    told = " ".join(refused.stderr.split())
    assert "that may have been a process of the run: python" in told
    assert f"(pid {agent.server}, tcp " in told
    shown = agent.crab("restore", "last@2", "--dry-run").stdout
    assert "a process of the run that was alive, see below, may have changed them" in shown
    os.kill(agent.server, signal.SIGKILL)
    until(lambda: not agent.server_lives)
    for words in ((), ("--dry-run",)):
        refused = agent.crab("restore", "last@2", *words)
        assert refused.returncode == 5
        assert "a process of the run" not in refused.stderr + refused.stdout


def test_a_copy_says_that_processes_do_not_come_with_it(agent, tmp_path):
    succeeded(agent.run(4))
    server = agent.server
    for turn, said in (("2", True), ("0", False)):
        shown = succeeded(agent.crab("restore", f"last@{turn}", "--to", str(tmp_path / turn)))
        assert ("these were alive then, and do not come with a copy: python" in shown) == said
        assert (f"(pid {server}, tcp " in shown) == said
    shown = succeeded(agent.crab("restore", "last@3", "log", "--to", str(tmp_path / "one")))
    assert "alive then" not in shown
    assert agent.add(0) == 4
