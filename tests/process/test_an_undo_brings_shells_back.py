"""`crab undo` of a restore that ended a shell: it comes back, though its channels are gone."""

from __future__ import annotations

import contextlib
import os
import signal

import msgspec
import pytest

from crabrt.process import table
from crabrt.process.shell import Shell, ShellRecord

from .counted_runs import Agent, succeeded

pytestmark = pytest.mark.root

AGENT = """
import os, subprocess, sys, time
from pathlib import Path
import msgspec
import crabrt

workspace = Path(sys.argv[1])
top = workspace.parent
shell = crabrt.Shell(cwd=workspace)

@crabrt.tool
def bash(command):
    output = shell.run(command, timeout=20).output
    (top / "record").write_bytes(msgspec.msgpack.encode(shell.record))
    return output

@crabrt.tool
def serve():
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    server = subprocess.Popen(["sleep", "1000"], start_new_session=True, **quiet)
    server.returncode = 0  # nobody waits for it
    (top / "server").write_text(str(server.pid))

@crabrt.tool
def write(text):
    (workspace / "file").write_text(text)

def die():
    os.kill(os.getpid(), 9)

@crabrt.model
def think(turn):
    if turn == 2:
        run = crabrt.current_run()
        end = time.monotonic() + 60
        while run.history()[turn].protection not in {"durable", "inherited"}:
            assert time.monotonic() < end
            time.sleep(0.02)
        if sys.argv[2] == "known":
            die()
    return turn

@crabrt.agent(workspace=workspace, name="served")
def loop():
    think(0)
    serve()
    think(1)
    write("one")
    if sys.argv[2] == "known":
        bash("count=7; plus() { count=$((count + $1)); echo $count; }")
    think(2)
    bash("count=7; plus() { count=$((count + $1)); echo $count; }")
    die()

loop()
"""


@pytest.fixture
def agent(tmp_path, criu):
    program = tmp_path / "served.py"
    program.write_text(AGENT)
    made = Agent(tmp_path, criu.program, program)
    made._env |= {"XDG_RUNTIME_DIR": str(tmp_path / "runtime"), "CRAB_GATE_LIMIT_MS": "60000"}
    yield made
    for pid in (*firsts(tmp_path), server(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def record(top) -> ShellRecord:
    return msgspec.msgpack.decode((top / "record").read_bytes(), type=ShellRecord)


def firsts(top) -> list[int]:
    """The first process of the shell's namespace, if it lives."""
    directory = record(top).directory
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    pids = [pid for pid in pids if directory in table.command(pid)]
    return [pid for pid in pids if table.inner_number(pid) == 1]


def server(top) -> int:
    return int((top / "server").read_text())


@pytest.mark.parametrize("shell", ["known", "of a turn that was not over"])
@pytest.mark.parametrize("by", ["gc", "rm"])
def test_a_shell_comes_back_whose_channels_were_removed(agent, tmp_path, until, shell, by):
    assert agent.run(shell).returncode == -signal.SIGKILL
    (was,) = firsts(tmp_path)
    sleeper = table.look(server(tmp_path))
    assert table.command(sleeper.pid) == (b"sleep", b"1000")
    shown = succeeded(agent.crab("restore", "last@0"))
    assert "ended: " in shown
    assert not firsts(tmp_path)
    assert not table.is_alive(sleeper.identity)

    channels = os.fsdecode(record(tmp_path).directory)
    for name in os.listdir(channels):
        if name.startswith("command-"):
            os.unlink(os.path.join(channels, name))
    os.utime(channels, (0, 0))
    succeeded(agent.crab("rm", agent.last, "--yes") if by == "rm" else agent.crab("gc"))
    assert not os.path.exists(channels)

    succeeded(agent.crab("undo", str(agent.ws)))
    assert (agent.ws / "file").read_text() == "one"
    assert table.command(sleeper.pid) == (b"sleep", b"1000")
    (init,) = firsts(tmp_path)
    assert table.look(init).identity != was
    with Shell.attach(record(tmp_path), init_pid=init) as attached:
        assert attached.run("plus 1").output == "8\n"
