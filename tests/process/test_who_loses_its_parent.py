"""A process of the run starts another, and ends, while nobody looks: that one is the run's too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from multiprocessing import resource_tracker

import pytest

import crabrt
from crabrt.core.entries import Noted, Resumed
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.process import subreaper, table
from crabrt.process.family import Family

from .counted_runs import Agent, succeeded

QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
SLEEPER = "{how} & echo $! > {name}.new; mv {name}.new {name}"
ENDS = "read line < go; " + SLEEPER
STAYS = ENDS.replace(SLEEPER, f"( {SLEEPER} )") + "; exec sleep 1000"
HOWS = {
    "orphan": "sleep 1000",
    "session": "setsid sleep 1000",
    "emptied environment": "setsid env -i sleep 1000",
}


@pytest.fixture
def place(tmp_path, monkeypatch, until):
    """Where programs wait until they are told to go on; what began there is ended."""
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, until)
    assert subreaper.hold()  # whoever loses its parent comes to us
    yield place
    place.close()
    subreaper.release()


class Place:
    def __init__(self, top, until) -> None:
        self.top, self._until = top, until
        self._before = {one.identity for one in table.descendants(os.getpid())}
        self._children = []
        os.mkfifo(top / "go")

    def started_by_a_tool(self, script: str, **options):
        """What a tool leaves behind that runs `script` in the background: when it ran, and that."""
        begin = time.monotonic_ns()
        known = {one.pid for one in table.descendants(os.getpid())}
        subprocess.run(["bash", "-c", f"( {script} ) &"], check=True, **QUIET, **options)
        (left,) = [one for one in self._new(known) if one.parent == os.getpid()]
        span = (begin, time.monotonic_ns())
        self.later()
        return (span,), left

    def _new(self, known):
        return [one for one in table.descendants(os.getpid()) if one.pid not in known]

    def popen(self, *command: str, **options):
        """A child of ours that we wait for."""
        self._children.append(subprocess.Popen(command, **QUIET, **options))
        return self._children[-1]

    def later(self) -> None:
        """Births are told apart by clock ticks."""
        time.sleep(2 * table.TICK_NS / 1e9)

    def tell(self) -> None:
        """Whoever waits here goes on."""

        def is_read() -> bool:
            with contextlib.suppress(OSError):  # nobody reads it yet
                with open(os.open("go", os.O_WRONLY | os.O_NONBLOCK), "w") as file:
                    file.write("go\n")
                return True
            return False

        self._until(is_read)

    def came(self, name: str = "sleeper") -> int:
        """The number of the one that was started, when it has lost its parent and sleeps."""
        self._until((self.top / name).exists)
        pid = int((self.top / name).read_text())
        self._until(lambda: table.look(pid).parent == os.getpid())
        self._until(lambda: table.command(pid) == (b"sleep", b"1000"))
        return pid

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._until(lambda: (found := table.look(pid)) is None or found.ended)

    def close(self) -> None:
        def are_gone() -> bool:
            every = table.descendants(os.getpid())
            left = [one for one in every if one.identity not in self._before]
            ours = {child.pid for child in self._children if child.returncode is None}
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
                if one.pid not in ours:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(one.pid, os.WNOHANG)
            for child in self._children:
                child.poll()
            return not left

        self._until(are_gone)


@pytest.fixture
def family(place):
    made = Family(os.getpid(), os.fsencode(place.top))
    made.settle()
    yield made
    made.close()


def numbers(found) -> set[int]:
    return {one.pid for one in found}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS.keys())
def test_who_was_started_by_one_that_has_ended_since_is_the_runs(family, place, how):
    tools, starter = place.started_by_a_tool(ENDS.format(how=how, name="sleeper"))
    assert numbers(family.look(tools)) == {starter.pid}
    place.tell()
    sleeper = place.came()
    assert numbers(family.look(())) == {sleeper}
    assert numbers(family.look(())) == {sleeper}


def test_what_the_loop_starts_meanwhile_and_waits_for_is_not(family, place):
    tools, starter = place.started_by_a_tool(ENDS.format(how="sleep 1000", name="sleeper"))
    assert numbers(family.look(tools)) == {starter.pid}
    place.tell()
    sleeper, mine = place.came(), place.popen("sleep", "1000")
    apart = place.popen("sleep", "1000", start_new_session=True)
    assert numbers(family.look(())) == {sleeper}
    assert {mine.pid, apart.pid} <= {one.pid for one in table.descendants(os.getpid())}


def test_what_the_loop_starts_and_does_not_wait_for_is_not_while_all_of_the_run_lives(
    family, place
):
    tools, other = place.started_by_a_tool("exec sleep 1000")
    assert numbers(family.look(tools)) == {other.pid}
    nobodys = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    assert numbers(family.look(())) == {other.pid}
    place.end(other.pid)
    assert not family.look(())  # judged once
    place.end(nobodys)


def test_who_was_left_by_one_that_lives_is_known_by_its_session(family, place):
    tools, starter = place.started_by_a_tool(
        "exec setsid bash -c '" + STAYS.format(how="sleep 1000", name="sleeper") + "'"
    )
    place._until(lambda: table.look(starter.pid).session == starter.pid)
    assert starter.pid in numbers(family.look(tools))
    place.tell()
    sleeper = place.came()
    assert table.look(sleeper).session == starter.pid
    assert table.is_alive(starter.identity)
    assert sleeper in numbers(family.look(()))


def test_who_was_left_by_a_helper_of_the_loops_is_not_the_runs(place):
    helper = place.popen(
        "bash", "-c", STAYS.format(how="sleep 1000", name="sleeper"), start_new_session=True
    )
    family = Family(os.getpid(), os.fsencode(place.top))
    family.settle()
    tools, other = place.started_by_a_tool("exec sleep 1000")
    assert numbers(family.look(tools)) == {other.pid}
    place.end(other.pid)
    place.tell()
    sleeper = place.came()
    assert table.look(sleeper).session == helper.pid
    assert not family.look(())
    family.close()


def test_who_cannot_descend_from_the_run_by_its_session_is_not_the_runs(family, place):
    """Nobody leaves a session for another one that is there already."""
    tools, other = place.started_by_a_tool("exec setsid sleep 1000")
    place._until(lambda: table.look(other.pid).session == other.pid)
    assert numbers(family.look(tools)) == {other.pid}
    place.end(other.pid)
    nobodys = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    assert table.look(nobodys).session == os.getsid(0)
    assert not family.look(())
    place.end(nobodys)


def test_of_several_runs_in_one_directory_nobody_takes_what_may_be_the_others(family, place):
    beside = Family(os.getpid(), os.fsencode(place.top))
    beside.settle()
    tools, starter = place.started_by_a_tool(ENDS.format(how="sleep 1000", name="sleeper"))
    assert numbers(family.look(tools)) == {starter.pid}
    place.tell()
    place.came()
    assert not beside.look(())
    assert not family.look(())
    beside.close()


def ends_when_looked_at(place, monkeypatch, starter: int) -> list[int]:
    """Have `starter` go on, and end, between the look at it and the one at its children."""
    real, came = table.look, []

    def look(pid: int):
        found = real(pid)
        if pid == starter and not came:
            came.append(0)
            place.tell()
            came[0] = place.came()
            place._until(lambda: (there := real(starter)) is None or there.ended)
        return found

    monkeypatch.setattr(table, "look", look)
    return came


def test_who_comes_to_the_loop_while_its_children_are_listed_is_among_them(place, monkeypatch):
    _, starter = place.started_by_a_tool(ENDS.format(how="setsid sleep 1000", name="sleeper"))
    came = ends_when_looked_at(place, monkeypatch, starter.pid)
    found = numbers(table.descendants(os.getpid()))
    assert came
    assert came[0] in found


def test_who_comes_to_the_loop_while_its_children_are_listed_is_the_runs(
    family, place, monkeypatch
):
    tools, starter = place.started_by_a_tool(ENDS.format(how="setsid sleep 1000", name="sleeper"))
    assert numbers(family.look(tools)) == {starter.pid}
    came = ends_when_looked_at(place, monkeypatch, starter.pid)
    found = numbers(family.look(()))
    assert came
    assert came[0] in found


def test_the_helper_of_multiprocessing_is_spoken_for(place):
    child = place.popen("sleep", "1000")
    resource_tracker.ensure_running()
    assert {child.pid, resource_tracker._resource_tracker._pid} <= subreaper.awaited()
    place.end(child.pid)
    child.wait()
    assert child.pid not in subreaper.awaited()


def test_a_turn_tells_of_one_that_escaped_while_the_model_thought(place, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(place.top / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place.top / "config"))
    mine = []

    @crabrt.tool
    def leave() -> None:
        place.started_by_a_tool(ENDS.format(how="setsid sleep 1000", name="sleeper"))

    @crabrt.tool
    def nothing() -> None:
        pass

    @crabrt.model
    def think(turn: int) -> int:
        if turn == 1:
            place.later()
            place.tell()
            place.came()
            mine.append(place.popen("sleep", "1000"))
            place.later()
        return turn

    (place.top / "ws").mkdir()

    @crabrt.agent(
        workspace=place.top / "ws", name="slow", network_observer="off", processes="track"
    )
    def loop() -> str:
        for turn in range(4):
            think(turn)
            leave() if turn == 0 else nothing()
        return crabrt.current_run().id

    run = loop()
    with RunIndex.open(place.top / "home") as index:
        index.refresh()
        _, second, third, _ = [turn for turn in index.turns(run) if turn.turn]
    sleeper = place.came()
    assert second.verdict == ("processes",)
    assert f"sleep 1000 (pid {sleeper}) new" in " ".join(second.evidence)
    assert str(mine[0].pid) not in " ".join(second.evidence)
    assert any("sleep 1000" in reason for reason in second.unprotected)
    assert third.evidence == ("1 sleeping",)


DIES = """
import os, subprocess, sys, time
from pathlib import Path
import crabrt
from crabrt.process import table

workspace = Path(sys.argv[1])
top = workspace.parent

@crabrt.tool
def start():
    subprocess.run(["bash", "-c", sys.argv[2]], cwd=top, check=True)

@crabrt.tool
def nothing():
    pass

@crabrt.tool
def lives():
    pid = int((top / "sleeper").read_text())
    return table.command(pid) == (b"sleep", b"1000")

def until(happened):
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)

@crabrt.model
def think(turn):
    if turn == 2 and not (top / "sleeper").exists():
        run = crabrt.current_run()
        until(lambda: run.history()[turn].protection in {"durable", "inherited"})
        time.sleep(2 * table.TICK_NS / 1e9)
        (top / "go").write_text("go\\n")
        until((top / "sleeper").exists)
        os.kill(os.getpid(), 9)
    return turn

@crabrt.agent(workspace=workspace, name="dies")
def loop():
    think(0)
    start()
    think(1)
    nothing()
    think(2)
    return lives()

print(loop())
"""


def test_it_goes_on_with_a_run_that_is_resumed_in_place(place, until):
    program = place.top / "dies.py"
    program.write_text(DIES)
    agent = Agent(place.top, place.top / "nothing", program)
    agent._env["CRAB_PROCESSES"] = "track"
    script = f"( {ENDS.format(how='setsid sleep 1000', name='sleeper')} ) > /dev/null 2>&1 &"
    assert agent.run(script).returncode == -signal.SIGKILL
    sleeper = int((place.top / "sleeper").read_text())
    assert succeeded(agent.run(script, resume="last")) == "True\n"
    with RunIndex.open(agent.home) as index:
        index.refresh()
        run = index.find("last").run
    bodies = [record.body for record in read_journal(run_dir(agent.home, run))]
    assert [body.mode for body in bodies if isinstance(body, Resumed)] == ["in-place"]
    assert not [body for body in bodies if isinstance(body, Noted) and body.topic == "orphan"]
    assert table.command(sleeper) == (b"sleep", b"1000")
