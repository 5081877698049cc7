"""Who lost its parent, and did not come to the loop: the run's are found, nobody else is taken."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crabrt.inspector.lasting import compare
from crabrt.process import orphans, subreaper, table
from crabrt.process.custody import Custody
from crabrt.process.family import Family, left_since
from crabrt.process.sighting import Sighting, sight

from .counted_runs import Agent

PROGRAM = Path(__file__).with_name("escaping.py")
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
NOBODY_KNOWS = "unprotected, as nobody can tell whose it is"

TERMINAL = """
set -m
sleep 1001 & echo $! > before
{python} {program} {workspace} {how} > said 2>&1 &
while [ ! -e {workspace}/running ]; do sleep 0.02; done
sleep 1002 & echo $! > beside
( cd {workspace}; exec sleep 1003 ) & echo $! > in-the-workspace
( sleep 1004 & echo $! > lost )
touch {workspace}/go
wait %2
"""
"""What a user types at a terminal, whose shell does job control: the session is the loop's own."""


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path, tmp_path / "nothing", PROGRAM)
    yield made
    names = [tmp_path / name for name in ("before", "beside", "in-the-workspace", "lost", "left")]
    for path in filter(Path.exists, names):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def at_a_terminal(agent: Agent, how: str, job: str):
    """The turns of a run beside which the user had jobs, and the number of who is in which file."""
    (agent.ws / "job").write_text(job)
    words = {"python": sys.executable, "program": PROGRAM, "workspace": agent.ws, "how": how}
    subprocess.run(
        ["bash", "-c", TERMINAL.format(**words)],
        cwd=agent.top,
        env=agent._env,
        check=True,
        timeout=100,
        start_new_session=True,
    )
    names = ("before", "beside", "in-the-workspace", "lost", "left")
    return agent.turns(), {name: int((agent.top / name).read_text()) for name in names}


def session_of(pid: int) -> int:
    return table.look(pid).session


@pytest.mark.parametrize("how", ["refused", "taken"])
def test_a_job_in_the_loops_session_is_the_runs_and_the_users_are_not(agent, how):
    job = "sleep 1000 > /dev/null 2>&1 & echo $! > left"
    (first, second, *_), pids = at_a_terminal(agent, how, job)
    assert len({session_of(pid) for pid in pids.values()}) == 1
    assert first.verdict == ("files", "processes")
    told = " ".join(first.evidence)
    assert f"sleep 1000 (pid {pids['left']}) new" in told
    assert any(f"pid {pids['left']}" in reason for reason in first.unprotected)
    for name in ("before", "beside", "in-the-workspace"):
        assert str(pids[name]) not in told
    assert f"sleep 1004 (pid {pids['lost']}) {NOBODY_KNOWS}" in told  # nor is it taken
    assert not any(str(pids["lost"]) in reason for reason in first.unprotected)
    assert any("carry no CRAB_RUN" in what for what in first.unobserved)
    assert second.evidence == ("1 sleeping",)
    # Who took the mark away cannot keep it: the next orphan comes to the loop.
    assert (agent.top / "said").read_text() == f"{how == 'taken'}\n"


def test_a_job_with_an_emptied_environment_is_named(agent):
    job = "env -i sleep 1000 > /dev/null 2>&1 & echo $! > left"
    (first, second, *_), pids = at_a_terminal(agent, "refused", job)
    assert first.verdict == ("files",)
    (told,) = [line for line in first.evidence if "1000" in line]
    assert f"sleep 1000 (pid {pids['left']}) {NOBODY_KNOWS}" in told
    assert second.evidence == ()  # it is no news any more


@pytest.fixture
def place(tmp_path, monkeypatch, until):
    """Who is started here has lost its parent, and did not come to us."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRAB_RUN", "me-1")
    assert not subreaper.is_marked()
    made = Place(tmp_path, until)
    yield made
    made.close()


class Place:
    def __init__(self, top, until) -> None:
        self.top, self.until = top, until
        self._pids: list[int] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def left(self, script: str, **env: str) -> table.Process:
        """Who runs `script`; it is nobody's child."""
        Path("script").write_text(script)
        Path("number").unlink(missing_ok=True)
        starts = "bash script & echo $! > number.new; mv number.new number"
        subprocess.run(["bash", "-c", starts], check=True, env=os.environ | env, **QUIET)
        return self.came("number")

    def came(self, name: str) -> table.Process:
        self.until(Path(name).exists)
        pid = int(Path(name).read_text())
        self.later(pid)
        self.until(lambda: table.command(pid)[:1] == (b"sleep",) or name == "number")
        return table.look(pid)

    def later(self, pid: int) -> table.Process:
        """One that is ended with the place."""
        self._pids.append(pid)
        return table.look(pid)

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        """A child of ours that we wait for."""
        self._children.append(subprocess.Popen(command, **QUIET))
        return self._children[-1]

    def close(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in self._children:
            child.kill()
            child.wait()


STARTS = "while [ ! -e go ]; do sleep 0.01; done; {how} sleep 1000 & echo $! > q.new; mv q.new q"


def family_of(*processes: table.Process) -> Family:
    """Of this process, which took up a run that they are of."""
    family = Family(os.getpid(), os.fsencode(Path.cwd()))
    family.settle()
    family.adopt(one.identity for one in processes)
    assert {one.pid for one in processes} <= {one.pid for one in family.look(())}
    time.sleep(2 * table.TICK_NS / 1e9)
    return family


@pytest.fixture
def held():
    """To be called: from then on orphans come to us; those that others leave do not."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            assert subreaper.hold()
            stack.callback(subreaper.release)

        yield hold


@pytest.mark.parametrize("how", ["", "setsid"])
def test_what_one_of_an_earlier_life_starts_and_leaves_is_the_runs(place, held, how):
    starter = place.left(STARTS.format(how=how))
    held()
    family = family_of(starter)
    Path("go").touch()
    late = place.came("q")
    place.until(lambda: not table.is_alive(starter.identity))
    assert late.parent != os.getpid()
    assert {one.pid for one in family.look(())} == {late.pid}
    assert not family.unsure


def test_one_that_carries_nothing_is_known_by_a_session_of_the_runs_only(place, held):
    script = f"( {STARTS.format(how='env -i')} ); exec sleep 1000"
    Path("script2").write_text(script)
    starter = place.left("exec setsid bash script2")
    place.until(lambda: session_of(starter.pid) == starter.pid)
    held()
    family = family_of(table.look(starter.pid))
    Path("go").touch()
    late = place.came("q")
    place.until(lambda: table.look(late.pid).parent not in {starter.pid, os.getpid()})
    place.until(lambda: table.look(late.pid).parent in orphans.lineage())
    assert session_of(late.pid) == starter.pid
    assert late.pid in {one.pid for one in family.look(())}


def test_one_that_carries_another_run_as_well_is_nobodys_for_sure(place):
    began = time.monotonic_ns()
    family = family_of()
    both = place.left("exec sleep 1000", CRAB_RUN="me-1,you-2")
    theirs = place.left("exec sleep 1000", CRAB_RUN="you-2")
    mine = place.left("exec sleep 1000", CRAB_RUN="outer-1/me-1/inner-1")
    tools = ((began, time.monotonic_ns()),)
    assert {one.pid for one in family.look(tools)} == {mine.pid}
    assert {one.pid for one in family.unsure} == {both.pid}
    assert theirs.pid not in {one.pid for one in (*family.look(()), *family.unsure)}
    assert {one.pid for one in family.unsure} == {both.pid}  # still
    os.kill(both.pid, signal.SIGKILL)
    place.until(lambda: not table.is_alive(both.identity))
    family.look(())
    assert not family.unsure


def test_what_the_loop_itself_started_while_no_tool_ran_is_not_the_runs(place):
    family = family_of()
    helper = place.left("exec sleep 1000")
    assert not family.look(())
    assert not family.unsure  # nobody of the run could have started it
    assert table.is_alive(helper.identity)


INSIDE = """
import os, subprocess, sys, time
from pathlib import Path
from crabrt.process import orphans
from crabrt.process.family import Family
family = Family(os.getpid(), os.fsencode(Path.cwd()))
family.settle()
began = time.monotonic_ns()
subprocess.run("sleep 1000 > /dev/null 2>&1 & echo $! > q", shell=True, check=True)
Path("ran").touch()
tools = ((began, time.monotonic_ns()),)
print([one.pid for one in family.look(tools)], [one.pid for one in family.unsure])
"""


def test_below_a_terminal_that_carries_the_run_itself_the_mark_proves_nothing(place):
    Path("inside.py").write_text(INSIDE)
    command = f"{sys.executable} inside.py; exit"  # bash stays: it is the terminal
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    pid = place.came("q").pid
    assert done.stdout == f"[] [{pid}]\n"


def test_a_tools_leavings_count_where_they_do_not_come_to_us(place):
    began = time.monotonic_ns()
    assert left_since(began) == 0
    place.left("exec sleep 1000")
    assert left_since(began) == 1
    time.sleep(2 * table.TICK_NS / 1e9)
    assert left_since(time.monotonic_ns()) == 0


def test_an_orphan_of_which_nothing_tells_whose_it_is_is_named_once(place, held):
    held()
    began = time.monotonic_ns()
    custody = Custody(tracks=True, imager=lambda: "no images here", workspace=b"/nowhere")
    one = place.popen("sleep", "1000")
    before = custody.look(((began, time.monotonic_ns()),))
    assert [each.pid for each in before.processes] == [one.pid]
    time.sleep(2 * table.TICK_NS / 1e9)
    nobodys = os.posix_spawnp("sleep", ["sleep", "1001"], os.environ)
    place.popen("sleep", "1002")
    now = custody.look(())
    told = compare(before, now)
    assert [each.pid for each in told.unsure] == [nobodys]
    assert f"sleep 1001 (pid {nobodys}) {NOBODY_KNOWS}" in told.evidence
    assert not told.began
    assert not told.ended
    assert not compare(now, custody.look(())).unsure
    os.kill(nobodys, signal.SIGKILL)
    os.waitpid(nobodys, 0)
    assert not custody.look(()).unsure
    custody.close()


SPINS = "( while [ ! -e go ]; do sleep 0.01; done; {how} & echo $! > q.new; mv q.new q )"


def test_files_beside_one_that_may_be_the_runs_and_ran_are_not_of_one_instant(place):
    how = "env -i bash -c 'while :; do :; done'"
    starter = place.left(SPINS.format(how=how) + "; exec sleep 1000")
    here = os.fsencode(place.top)
    custody = Custody(tracks=True, imager=lambda: "no images here", workspace=here)
    custody.adopt([starter.identity])
    Path("go").touch()
    place.until(Path("q").exists)
    spins = place.later(int(Path("q").read_text()))
    place.until(lambda: table.command(spins.pid)[:2] == (b"bash", b"-c"))
    place.until(lambda: table.command(starter.pid)[:1] == (b"sleep",))

    def copy() -> str:
        time.sleep(2 * table.TICK_NS / 1e9)
        return "files"

    taken = custody.snapshot(None, copy, lambda _: place.top)
    assert [one.pid for one in taken.alive.processes] == [starter.pid]
    assert [one.pid for one in taken.alive.unsure] == [spins.pid]
    assert not taken.exact
    os.kill(spins.pid, signal.SIGKILL)
    place.until(lambda: not table.is_alive(spins.identity))
    assert custody.snapshot((), copy, lambda _: place.top).exact
    custody.close()


def test_who_is_unsure_is_described_like_the_others():
    own = table.look(os.getpid())
    assert [one.pid for one in sight([], Sighting(), unsure=[own]).unsure] == [own.pid]
