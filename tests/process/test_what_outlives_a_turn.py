"""Which processes are a run's, what its turns say of them, and that nobody escapes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import crabrt
from crabrt.journal import RunIndex
from crabrt.process import custody, subreaper, table
from crabrt.store import Store
from crabrt.store.contents import read_bytes
from crabrt.workspace import find_entry

LIMIT_S = 20.0

DAEMON = """
import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
os.execve("/bin/sleep", ["sleep", "1000"], {})
"""


@crabrt.tool
def sh(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode()


@crabrt.model
def think(turn: int) -> int:
    return turn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # where a CRIU may be installed
    return tmp_path / "home"


@pytest.fixture
def started():
    """Processes to be ended with the test, by their numbers."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def play(home: Path, *steps, **options):
    """A run with a turn for each step, a function or a command of the shell; its turns."""
    ws = home.parent / "ws"
    ws.mkdir(exist_ok=True)

    @crabrt.agent(workspace=ws, name="run", network_observer="off", **options)
    def loop() -> str:
        for turn, step in enumerate(steps):
            think(turn)
            sh(step) if isinstance(step, str) else step()
        return crabrt.current_run().id

    run = loop()
    with RunIndex.open(home) as index:
        index.refresh()
        return [turn for turn in index.turns(run) if turn.turn]


def until(happened) -> None:
    end = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def sleeps(pid: int) -> bool:
    return table.pulse(pid) is not None and b"sleep" in b" ".join(table.command(pid))


def background(started, how: str = "sleep 1000 > /dev/null 2>&1 & echo $!"):
    """A tool call that leaves a process behind, which sleeps when the call is over."""

    @crabrt.tool
    def leave() -> int:
        pid = int(subprocess.run(["bash", "-c", how], check=True, stdout=subprocess.PIPE).stdout)
        started.append(pid)
        until(lambda: sleeps(pid))
        return pid

    return leave


def test_a_process_that_outlives_its_turn_is_told_and_while_it_sleeps_nothing_is(home, started):
    first, second, third = play(home, background(started), "true", "true")
    assert first.verdict == ("processes",)
    assert f"sleep 1000 (pid {started[0]}) new" in first.evidence[0]
    assert (first.protection, second.protection) == ("durable", "inherited")
    assert second.verdict == third.verdict == ("none",)
    assert second.evidence == ("1 sleeping",)


def test_one_that_runs_and_one_that_ends_are_told(home, started):
    def wake() -> None:
        os.kill(started[0], signal.SIGSTOP)
        os.kill(started[0], signal.SIGCONT)

    def end() -> None:
        os.kill(started[0], signal.SIGKILL)
        until(lambda: (found := table.look(started[0])) is None or found.ended)

    woken, ended = crabrt.tool(wake), crabrt.tool(end)
    _, second, third, last = play(home, background(started), woken, ended, "true")
    assert second.verdict == ("processes",)
    assert "sleep 1000" in second.evidence[0]
    assert second.evidence[0].endswith(" ran")
    assert third.verdict == ("processes",)
    assert third.evidence[0].endswith(" gone")
    assert (last.verdict, last.evidence) == (("none",), ())


@pytest.mark.parametrize(
    "how",
    [
        "(sleep 1000 > /dev/null 2>&1 & echo $!) & wait",
        "setsid sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!",
        "(setsid env -i /bin/sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!) ; exit",
        f"{sys.executable} -c '{DAEMON}'",
    ],
    ids=["orphan", "session", "emptied environment", "daemon"],
)
def test_nobody_escapes(home, started, how):
    first, second = play(home, background(started, how), "true")
    assert first.verdict == ("processes",)
    assert f"(pid {started[0]}) new" in first.evidence[0]
    assert second.evidence == ("1 sleeping",)


def test_what_lived_shorter_than_its_turn_does_not_count(home):
    (only,) = play(home, "sleep 0.05 & (setsid sleep 0.01 &) ; wait; sleep 0.2")
    assert only.verdict == ("none",)
    assert only.evidence == ("no lasting processes",)


def test_the_loops_own_helpers_are_not_the_runs(home, started):
    def helper() -> None:  # no tool: the loop starts it itself
        one = subprocess.Popen(["sleep", "1000"])
        started.append(one.pid)
        one.returncode = 0  # nobody waits for it
        until(lambda: sleeps(one.pid))
        time.sleep(2 * table.TICK_NS / 1e9)  # births are told apart by clock ticks

    before = subprocess.Popen(["sleep", "1000"])
    before.returncode = 0  # nobody waits for it
    started.append(before.pid)
    time.sleep(2 * table.TICK_NS / 1e9)
    ws = home.parent / "ws"
    ws.mkdir()

    @crabrt.agent(workspace=ws, name="run", network_observer="off")
    def loop() -> None:
        think(0)
        sh("true")
        time.sleep(2 * table.TICK_NS / 1e9)
        helper()
        think(1)
        sh("true")

    loop()
    with RunIndex.open(home) as index:
        index.refresh()
        turns = [turn for turn in index.turns(index.find("run").run) if turn.turn]
    assert [turn.verdict for turn in turns] == [("none",), ("none",)]
    assert {turn.evidence for turn in turns} == {()}


def test_a_loop_that_wraps_no_tools_is_told_of_all_that_it_starts(home, started):
    ws = home.parent / "ws"
    ws.mkdir()

    @crabrt.agent(workspace=ws, name="run", network_observer="off")
    def loop() -> None:
        think(0)
        one = subprocess.Popen(["sleep", "1000"])
        started.append(one.pid)
        one.returncode = 0  # nobody waits for it
        until(lambda: sleeps(one.pid))
        think(1)

    loop()
    with RunIndex.open(home) as index:
        index.refresh()
        first = next(turn for turn in index.turns(index.find("run").run) if turn.turn == 1)
    assert first.verdict == ("processes",)


def test_where_a_server_listens_is_told(home, started):
    script = (
        "import socket, os, time\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(os.getpid(), s.getsockname()[1], flush=True)\nos.close(1)\ntime.sleep(1000)"
    )
    ports = []

    @crabrt.tool
    def serve() -> None:
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as one:
            pid, port = one.stdout.readline().split()
            started.append(int(pid))
            ports.append(port)
            until(lambda: table.pulse(int(pid)) is not None)
            one.returncode = 0  # nobody waits for it

    (only,) = play(home, serve)
    assert f"tcp 127.0.0.1:{ports[0]}) new" in only.evidence[0]


def test_processes_are_not_looked_for_where_nobody_wants_it(home, started):
    (only,) = play(home, background(started), processes="off")
    assert (only.verdict, only.evidence) == (("none",), ())


def test_orphans_come_to_the_loop_only_while_a_run_lives(home):
    assert not subreaper.is_marked()
    seen = []

    @crabrt.tool
    def look() -> None:
        seen.append(subreaper.is_marked())

    play(home, look)
    assert seen == [True]
    assert not subreaper.is_marked()


def test_what_an_orphan_leaves_is_collected_and_what_a_child_leaves_is_not(home, started):
    children = []

    @crabrt.tool
    def child() -> None:
        children.append(subprocess.Popen(["true"]))
        until(lambda: (found := table.look(children[0].pid)) is not None and found.ended)

    @crabrt.tool
    def orphan() -> None:
        # Its parent lives until the turn is looked at, and dies in the next one.
        parent = subprocess.Popen(
            ["bash", "-c", "sleep 1000 > /dev/null & echo $!; wait"], stdout=subprocess.PIPE
        )
        children.append(parent)
        started.append(int(parent.stdout.readline()))
        until(lambda: sleeps(started[0]))

    @crabrt.tool
    def kill() -> None:
        children[1].kill()
        children[1].wait()
        children[1].stdout.close()
        until(lambda: table.look(started[0]).parent == os.getpid())
        os.kill(started[0], signal.SIGKILL)

    play(home, child, orphan, kill, "true")
    assert table.look(started[0]) is None  # and no zombie
    assert children[0].wait() == 0  # its status was the loop's to take


@pytest.mark.parametrize("how", ["setsid ", ""], ids=["daemons", "orphans"])
def test_what_began_and_ended_between_two_looks_does_not_pile_up(home, how):
    """They come to the loop when nobody looks, and are children like any other then."""
    many = 300
    owned, left = [], []

    @crabrt.tool
    def own() -> None:
        owned.append(subprocess.Popen(["false"]))
        until(lambda: table.look(owned[0].pid).ended)

    def ended() -> list[int]:
        return [one.pid for one in table.descendants(os.getpid()) if one.ended]

    @crabrt.tool
    def scatter() -> None:
        command = f"for n in $(seq {many}); do ({how}sh -c 'sleep 0.05; exit 3' &); done"
        subprocess.run(["bash", "-c", command], check=True)
        until(lambda: len(ended()) >= many)

    @crabrt.tool
    def count() -> None:
        left.extend(ended())

    play(home, own, scatter, "true", "true", count)
    assert len(left) < many // 2
    assert owned[0].wait() == 1  # its status was the loop's to take
    for pid in left:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_a_command_is_told_without_its_secrets(home, started):
    token = "sk-" + "a1B2" * 12
    how = f"bash -c 'sleep 1000 & wait' worker --key {token} > /dev/null 2>&1 & echo $!"
    (only,) = play(home, background(started, how))
    assert token.encode() in table.command(started[0])
    assert token not in " ".join(only.evidence + only.unprotected)
    assert "new" in only.evidence[0]
    subprocess.run(["pkill", "-KILL", "-P", str(started[0])], check=True)


def test_who_writes_all_the_time_stands_still_for_the_copy(home, started):
    ws = home.parent / "ws"
    ws.mkdir()
    writer = (
        "import itertools, os\nfirst, second = open('first', 'wb', 0), open('second', 'wb', 0)\n"
        "for number in itertools.count():\n"
        "    for file in (first, second): file.seek(0); file.write(b'%12d' % number)"
    )

    @crabrt.tool
    def write() -> None:
        one = subprocess.Popen([sys.executable, "-c", writer], cwd=ws)
        started.append(one.pid)
        one.returncode = 0  # nobody waits for it
        until(lambda: (ws / "second").exists() and (ws / "second").stat().st_size)

    turns = play(home, write, "true", "true", processes="track")
    assert all(turn.frozen_ms > 0 for turn in turns)
    with Store.open(home) as store:
        for turn in turns:
            first, second = (
                int(read_bytes(find_entry(store, turn.root, name).content, store))
                for name in (b"first", b"second")
            )
            assert first - second in {0, 1}  # of one instant, in the order it writes them
    assert table.look(started[0]).state != "T"


def test_a_turn_whose_processes_all_slept_is_of_one_instant(home, started):
    ws = home.parent / "ws"

    @crabrt.tool
    def write() -> None:
        (ws / "file").write_text("new")

    turns = play(home, write, background(started), write, processes="track")
    assert [turn.consistency for turn in turns] == ["exact"] * 3
    (turn,) = play(home, write, processes="off")
    assert turn.consistency == "per_file"


def test_a_turn_beside_somebody_who_runs_on_is_not(home, started, monkeypatch):
    monkeypatch.setattr(custody, "Standstill", NobodyStops)
    ws = home.parent / "ws"

    @crabrt.tool
    def write() -> None:
        (ws / "file").write_text("new")

    busy = f"{sys.executable} -c 'while True: pass' > /dev/null 2>&1 & echo $!"

    @crabrt.tool
    def leave() -> None:
        pid = int(subprocess.run(["bash", "-c", busy], check=True, stdout=subprocess.PIPE).stdout)
        started.append(pid)
        until(lambda: b"while" in b" ".join(table.command(pid)))

    _, second = play(home, leave, write, processes="track")
    assert second.consistency == "per_file"


class NobodyStops(custody.Standstill):
    def stop_all(self, alive):
        return False
