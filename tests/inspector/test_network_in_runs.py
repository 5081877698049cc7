"""Runs whose tools connect: what the verdict says, whose connections count, what is on record."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.inspector.network import AutoNetwork, Spans, UnwatchedNetwork, probe_network
from crabrt.inspector.network.held import held_by
from crabrt.inspector.watch.errors import Reason
from crabrt.journal import RunIndex
from crabrt.runtime.reaching import Reaching
from crabrt.runtime.turns import TurnMachine

MADE = """
ip link set lo up
ip addr add 203.0.113.9/32 dev lo
exec "$@"
"""
WORLD = ("unshare", "-n", "sh", "-c", MADE, "world")
CONNECT = """
import socket
listening = socket.create_server(("0.0.0.0", 4430))
socket.create_connection(("203.0.113.9", 4430))
"""
DEAF = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0x'); s.listen(); "

pytestmark = pytest.mark.root


@pytest.fixture
def ws(ws):
    refused = probe_network()
    if refused is not None and refused.reason is Reason.KERNEL:
        pytest.skip(f"kernel: {refused}")
    return ws


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.tool
def execute(code: str) -> None:
    """A tool of which nothing is known."""
    subprocess.run([*WORLD, sys.executable, "-c", code], check=True)


@crabrt.tool(effect="files")
def fetch() -> None:
    subprocess.run([*WORLD, sys.executable, "-c", CONNECT], check=True)


@crabrt.tool
def bash(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode


def play(ws: Path, *calls, **options):
    """A run with a turn for each call; its turns."""

    @crabrt.agent(workspace=ws, **options)
    def loop() -> str:
        for turn, call in enumerate(calls):
            think(turn)
            call()
        return crabrt.current_run().id

    return turns(ws, loop())


def turns(ws, run):
    with RunIndex.open(ws.parent / "home") as index:
        index.refresh()
        return index.turns(run)[1:]


def told(turn):
    return list(turn.verdict), list(turn.evidence)


def test_a_tool_that_reaches_the_world_makes_its_turn_external_and_no_other(ws):
    before, connects, after = play(
        ws, lambda: execute("pass"), lambda: execute(CONNECT), lambda: execute("pass")
    )
    assert told(before) == told(after) == (["none"], [])
    name = connects.evidence[0].rpartition(" (")[0].rpartition("(")[2].rstrip(")")
    assert name.startswith("python")
    assert told(connects) == (
        ["external"],
        [f"external: connected to 203.0.113.9:4430 ({name}) (seen)"],
    )
    assert {turn.observer for turn in (before, connects, after)} == {"scan, network"}


def test_a_tool_that_declares_files_may_download(ws):
    (turn,) = play(ws, fetch)
    assert list(turn.verdict) == ["none"]
    assert turn.evidence[0].startswith("connected to 203.0.113.9:4430 (python")


def test_a_push_that_sends_nothing_is_not_external(ws):
    (turn,) = play(ws, lambda: bash("git push nowhere-at-all"))
    assert told(turn) == (
        ["none"],
        ["bash, git push: leaves the machine (guess), but nothing was sent"],
    )


def test_a_push_that_asks_a_local_service_stays_external(ws):
    code = DEAF + "socket.socket(socket.AF_UNIX).connect('\\\\0x')"
    (turn,) = play(ws, lambda: bash(f'git push nowhere-at-all; {sys.executable} -c "{code}"'))
    assert "external: bash, git push: leaves the machine (guess)" in turn.evidence
    assert list(turn.verdict) == ["external"]


def test_a_push_that_may_come_later_stays_external(ws):
    os.mkfifo(ws.parent / "go")
    wait = f"read x < {ws.parent / 'go'}"
    later = f"({wait}; git push nowhere-at-all) > /dev/null 2>&1 & echo $! > $WS/pid"
    os.environ["WS"] = str(ws)
    try:
        (turn,) = play(ws, lambda: bash(later))
    finally:
        del os.environ["WS"]
        os.kill(int((ws / "pid").read_text()), signal.SIGKILL)
    assert "external: bash, git push: leaves the machine (guess)" in turn.evidence


def test_a_call_that_sends_through_a_connection_of_before_stays_external(ws):
    """A client that keeps its connection, as a module's session does: its calls connect once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        @crabrt.tool
        def upload(text: str) -> None:
            if not kept:
                kept.append(socket.create_connection(server.getsockname()))
            kept[0].sendall(text.encode())

        first, again, nothing = play(
            ws, lambda: upload("once"), lambda: upload("twice"), lambda: upload("")
        )
        kept[0].close()
    reason = "upload, its name, upload: leaves the machine (guess)"
    assert told(first) == told(again) == (["external"], [f"external: {reason}"])
    assert told(nothing) == (["none"], [f"{reason}, but nothing was sent"])


def test_doctor_says_whether_connections_can_be_watched(ws):
    done = subprocess.run(
        [sys.executable, "-m", "crabrt", "doctor", ws, "--quick", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    facts = {fact["name"]: fact for fact in json.loads(done.stdout)["data"]["facts"]}
    assert facts["network"]["standing"] == "ok"
    assert "destinations" in facts["network"]["seen"]


def test_without_the_observer_a_guess_stays_a_guess(ws):
    (turn,) = play(ws, lambda: bash("git push nowhere-at-all"), network_observer="off")
    assert told(turn) == (["external"], ["external: bash, git push: leaves the machine (guess)"])
    assert turn.observer == "scan"
    assert turn.unobserved == ("network not watched: it is off",)


def test_that_nobody_watched_is_told_in_passing_and_is_no_warning(ws):
    @crabrt.agent(workspace=ws, network_observer="off")
    def loop() -> str:
        think(1)
        bash("true")
        return crabrt.current_run().id

    target = f"{loop()}@1"

    def show(*options):
        argv = [sys.executable, "-m", "crabrt", "show", target, *options]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert "observed    by scan; network not watched: it is off\n" in show()
    assert "not seen" not in show()
    assert json.loads(show("--json"))["data"]["unobserved"] == ["network not watched: it is off"]


def test_what_the_model_call_connects_to_is_no_effect_of_the_turn(ws, monkeypatch):
    looked = spy(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        @crabrt.model
        def ask(turn: int) -> int:
            socket.create_connection(("127.0.0.1", port)).close()
            return turn

        @crabrt.tool
        def own() -> None:
            socket.create_connection(("127.0.0.1", port)).close()

        @crabrt.tool
        def sub_agent() -> None:
            ask(99)

        @crabrt.agent(workspace=ws)
        def loop() -> None:
            for turn, tool in enumerate((own, sub_agent)):
                ask(turn)
                tool()

        loop()
    by_tool, by_model = looked[-2:]
    assert [one.target for one in by_tool.connections] == [f"127.0.0.1:{port}"]
    assert by_tool.connections[0].own
    assert by_model.connections == ()
    assert by_model.unsure


def test_a_loss_is_said_of_its_turn(ws, monkeypatch):
    def lossy(self, asked):
        self._losses.append((asked.begin_ns, asked.end_ns, "staged"))
        return found(self, asked)

    from crabrt.inspector.network import WatchedNetwork  # noqa: PLC0415  beside its patch

    found = WatchedNetwork.look
    monkeypatch.setattr(WatchedNetwork, "look", lossy)
    (turn,) = play(ws, lambda: bash("git push nowhere-at-all"))
    assert list(turn.verdict) == ["external"]
    assert turn.unobserved == ("network: staged",)
    assert turn.observer == "scan"


def test_looking_closer_ends_with_the_turn(ws, monkeypatch):
    counts = []

    def counted(name):
        real = getattr(AutoNetwork, name)

        def call(self):
            counts.append(name)
            return real(self)

        monkeypatch.setattr(AutoNetwork, name, call)

    counted("sharpen")
    counted("blunt")
    play(ws, lambda: bash("git push x"), lambda: bash("true"), lambda: bash("git push x"))
    assert counts == ["sharpen", "blunt", "sharpen", "blunt"]


def test_a_run_that_is_over_follows_nobody(ws):
    before = perf_events()
    play(ws, lambda: execute("pass"))
    assert perf_events() == before


def perf_events():
    for thread in threading.enumerate():
        if thread.name == "crabrt-network":  # it closes them
            thread.join()
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return links.count("anon_inode:[perf_event]")


def spy(monkeypatch):
    """What every look of a run gives."""
    seen = []
    real = AutoNetwork.look

    def look(self, asked):
        seen.append(real(self, asked))
        return seen[-1]

    monkeypatch.setattr(AutoNetwork, "look", look)
    return seen


@pytest.mark.parametrize("had", [[], [True], [True, True], [True, False], [False]])
def test_a_turn_is_certain_only_if_it_was_looked_at_closely_each_time(had):
    class Engine:
        models = Spans()
        network = AutoNetwork(b"")

    answers = iter(had)
    Engine.network.sharpen = lambda: next(answers)
    reaching = Reaching(Engine(), TurnMachine())
    for _ in had:
        reaching.sharpen()
    assert reaching.asked(ends_turn=False).sharpened == 0
    asked = reaching.asked(ends_turn=True)
    assert asked.interval.local == (had in ([True], [True, True]))
    assert asked.sharpened == len(had)
    after = reaching.asked(ends_turn=True)
    assert after.interval.begin_ns == asked.interval.end_ns
    assert (after.sharpened, after.interval.local) == (0, False)


def test_a_turn_asks_whether_what_was_open_before_its_calls_was_used():
    class Engine:
        models = Spans()
        network = AutoNetwork(b"")

    reaching = Reaching(Engine(), TurnMachine())
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        Engine.network.sharpen = lambda: True
        Engine.network.held = lambda: held_by(os.getpid(), b"")
        reaching.sharpen()
        one.send(b"x")
        reaching.sharpen()  # what the first call sent is not forgotten
        assert reaching.asked(ends_turn=False).interval.reused
        assert reaching.asked(ends_turn=True).interval.reused
        reaching.sharpen()
        assert not reaching.asked(ends_turn=True).interval.reused
        one.close()


def test_the_configuration_knows_it():
    assert (
        crabrt.Config.from_env(environ={"CRAB_NETWORK_OBSERVER": "off"}).network_observer == "off"
    )
    with pytest.raises(crabrt.errors.UsageError, match="network_observer"):
        crabrt.Config.from_env(environ={}, network_observer="bpftrace")
    with pytest.raises(crabrt.errors.UsageError, match="may not be set there"):
        crabrt.Config.from_env(environ={}, workspace={"network_observer": "off"})
    assert UnwatchedNetwork("x").watched is False
