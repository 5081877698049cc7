"""A loop is killed while CRIU is at work for it: whoever restores waits until that is over."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.process import aftermath, table

from .counted_runs import succeeded

CALLED = """#!/bin/sh
if [ "$1" = dump ] && grep -q address "/proc/$3/cmdline" && grep -q 1 {log}; then
    echo $PPID > {loop}
    echo $$ > {criu}
    set -- "$@" --action-script {holding}
fi
exec {real} "$@"
"""
"""The second image of the server."""

HOLDS_IT = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
kill -KILL $(cat {loop})
until [ -e {go} ]; do sleep 0.02; done
"""
"""CRIU calls it while it holds the server, and waits."""


@pytest.mark.root
def test_a_restore_waits_for_it(agent, criu, tmp_path):
    named = {name: tmp_path / name for name in ("fake", "loop", "criu", "holding", "go")}
    words = {**named, "real": criu.program, "log": agent.ws / "log"}
    words = {name: shlex.quote(str(path)) for name, path in words.items()}
    for name, text in (("fake", CALLED), ("holding", HOLDS_IT)):
        named[name].write_text(text.format(**words))
        named[name].chmod(0o700)
    agent._env["CRAB_CRIU"] = str(named["fake"])
    killed = agent.run(6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid = int(named["criu"].read_text())
    server = agent.server
    status = Path(f"/proc/{server}/status").read_text()
    assert f"TracerPid:\t{pid}\n" in status
    agent._env["CRAB_CRIU"] = str(criu.program)
    command = [sys.executable, "-m", "crabrt", "restore", "last@2", "--force"]
    with subprocess.Popen(
        command,
        cwd=agent.ws,
        env=agent._env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as restore:
        assert "it takes an image for somebody who was killed" in restore.stderr.readline()
        assert not table.look(server).ended
        named["go"].touch()
        said, errors = restore.communicate(timeout=100)
    assert restore.returncode == 0, said + errors
    assert agent.add(0) == 1
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 1 + 3


HOLDS = """
import os, sys
from crabrt.process.standstill import Standstill
still = Standstill()
still.stop([int(sys.argv[1])])
os.write(1, b".")
sys.stdin.read()
"""


def test_the_guard_of_a_dead_holder_is_waited_for_and_that_of_a_live_one_is_not(trees, until):
    child = trees.start("import signal; ready(); signal.pause()")
    words = [sys.executable, "-c", HOLDS, str(child.pid)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.read(1) == b"."
        (guard,) = table.children(holder.pid)
        until(lambda: guard in guards())
        assert guard not in aftermath._busy(())
        os.kill(guard, signal.SIGSTOP)  # it does not end before anybody looks
        holder.kill()
    assert guard in aftermath._busy(())
    assert not aftermath.await_dumps((), 0, lambda _: None)
    os.kill(guard, signal.SIGCONT)
    until(lambda: guard not in aftermath._busy(()))
    until(lambda: table.look(child.pid).state == "S")


def guards() -> set[int]:
    """Who is called as such a guard is."""
    numbers = map(int, filter(str.isdecimal, os.listdir("/proc")))
    return {one for one in numbers if aftermath._LETS_GO_ON in b"".join(table.command(one))}
