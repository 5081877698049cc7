"""The recovery benchmark: what it kills is dead, and what is wrong is noticed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.bench import RecoveryOptions, measure_recovery
from crabrt.bench.apart import WorkFailed
from crabrt.bench.recovery_judging import Expected, journal_of, lists_differ
from crabrt.bench.recovery_rig import Ended, Rig, free_port
from crabrt.errors import UsageError
from crabrt.process import table
from crabrt.process.criu import Criu, find, install
from crabrt.testing.tasks import TASKS, Task
from crabrt.testing.tasks import task as tasks
from crabrt.testing.tasks.agent import Messages
from crabrt.testing.tasks.digesting import digest


@pytest.fixture(scope="session")
def criu(request):
    configured = os.environ.get("CRAB_CRIU")
    found = find(Path(configured)) if configured else find()
    if not isinstance(found, Criu):
        programs = request.config.cache.mkdir("programs")
        with open(programs / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = find(programs=programs)
            if not isinstance(found, Criu):
                found = install(programs)
    assert isinstance(found, Criu), found
    return found


@pytest.fixture
def clean(tmp_path):
    """An environment without settings of crabrt's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRAB_")}
    return kept | {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def rig(tmp_path, clean):
    with Rig(tmp_path / "ground", TASKS["shell"], clean, 1) as made:
        yield made


def nothing(_: str) -> None:
    """Progress that nobody looks at."""


@pytest.mark.root
def test_killed_agents_end_like_undisturbed_ones_if_their_processes_come_back(
    scratch, clean, criu, tmp_path
):
    options = RecoveryOptions(
        scratch, ("socket-pair",), kills=2, restores=3, seed=5, keep=tmp_path / "kept"
    )
    report = measure_recovery(options, clean | {"CRAB_CRIU": str(criu.program)}, nothing)
    assert report.wrong == []
    rows = {(row.scenario, row.what, row.who): row.series.median for row in report.rows}
    assert rows["socket-pair", "recovered of 2", "full"] == 2
    assert rows["socket-pair", "turns restored", "crabrt"] == 3
    assert ("socket-pair", "time to recover", "files") in rows
    assert [bar.met for bar in report.bars] == [True]
    kept = [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()[1:]]
    assert len(kept) == 1 + 2 * 3
    assert list(scratch.glob("recovery-*")) == []
    again = measure_recovery(options, clean | {"CRAB_CRIU": str(criu.program)}, nothing)
    assert again.data()["rows"] == report.data()["rows"], "taken from what was kept"


def test_a_server_that_nobody_brings_back_is_noticed(tmp_path, clean):
    agent = TASKS["socket-pair"]
    with Rig(tmp_path / "ground", agent, clean, 1) as rig:
        said = rig.finish(rig.agent("watched", env={"CRAB_DISABLE": "1"})).result("it")["said"]
        expected = Expected(said, [], [digest(agent, rig.workspace)], [], 0.0, 0.0, [])
        rig.fresh()
        words = ("run", "--chat", str(rig.chat))
        process = rig.agent(*words, env={"CRAB_DISABLE": "1"})
        assert rig._wait(lambda: rig.chat.exists() and rig.chat.read_text().count("\n") > 7, 60)
        rig.kill(process)
        assert process.returncode == -signal.SIGKILL
        again = rig.finish(rig.agent(*words, env={"CRAB_DISABLE": "1"})).result("it")
        (told, *_) = expected.differences(rig, again, journalled=False)
    assert "'absent" in told
    assert again[:3] == said[:3], "the conversation goes on"


def test_what_is_killed_is_dead_also_if_it_left_home(rig):
    code = (
        "import os, time; os.setsid(); os.fork() and os._exit(0); open('left', 'w'); time.sleep(99)"
    )
    process = rig.start(
        [sys.executable, "-c", f"import os\nos.fork() or exec({code!r}) or 1\n{code}"]
    )
    rig._wait(lambda: (rig.ground / "left").exists(), 20)
    begun = rig._begun()
    assert begun
    rig.kill(process)
    assert rig._begun() == []
    assert all(table.look(pid) is None for pid, _ in begun), "collected, so that numbers are free"
    assert process.returncode is not None


def test_who_escapes_is_found_by_the_mark(rig):
    kept = {name: value for name, value in rig.environ.items() if name == "RECOVERY_BENCH"}
    other = subprocess.Popen(["sleep", "99"], env=kept, start_new_session=True)
    rig._before.add(table.look(other.pid).identity)  # no child of the rig's, as far as it knows
    rig.sweep()
    assert other.wait(10) == -signal.SIGKILL


def test_a_program_that_never_ends_is_ended(rig):
    ended = rig.finish(rig.start(["sleep", "99"]), limit_s=0.2)
    assert ended.status is None
    with pytest.raises(WorkFailed, match="not done in time"):
        ended.result("it")


@pytest.fixture
def two_calls(monkeypatch):
    made = Task(
        "two", "nothing", ((tasks.sh("echo a > file; echo one"),),), (tasks.sh("cat file"),)
    )
    monkeypatch.setitem(TASKS, "two", made)
    return made


def test_every_difference_has_a_line(tmp_path, clean, two_calls):
    with Rig(tmp_path / "ground", two_calls, clean, 1) as rig:
        (rig.workspace / "file").write_text("a\n")
        expected = Expected(["one\n"], [], [digest(two_calls, rig.workspace)], [], 1, 1, [])
        assert journal_of(rig) == []
        assert expected.differences(rig, ["one\n"], journalled=True) == []
        (rig.workspace / "file").write_text("b\n")
        expected.journal.append("1 sh: one")
        assert expected.differences(rig, ["two\n"], journalled=True) == [
            r"call 0: 'two\n' instead of 'one\n'",
            "the files at the end are others",
            "journal 0: 'nothing' instead of '1 sh: one'",
        ]
    assert lists_differ("call", ["a", "b"], ["b", "a"]) == ["call 0: 'b' instead of 'a' (1 more)"]


def test_messages_are_said_once_and_a_torn_one_again(tmp_path):
    path = tmp_path / "chat"
    first = Messages(path)
    assert [first.once(lambda word=word: word) for word in "abc"] == ["a", "b", "c"]
    path.write_bytes(path.read_bytes()[:-2])
    again = Messages(path)
    assert [again.once(lambda word=word: word) for word in "xyz"] == ["a", "b", "z"]
    assert [json.loads(line) for line in path.read_text().splitlines()] == ["a", "b", "z"]


def test_what_is_not_installed_is_absent_and_no_result(scratch, clean, tmp_path):
    options = RecoveryOptions(scratch, ("redis",), ("chat",), kills=1)
    with pytest.raises(UsageError, match="redis: not installed: redis-server, redis-cli"):
        measure_recovery(options, clean | {"PATH": str(tmp_path)}, nothing)


def test_without_criu_the_rest_is_measured(scratch, clean, tmp_path):
    options = RecoveryOptions(scratch, ("scratch-file",), ("full", "chat"), kills=1, restores=0)
    report = measure_recovery(options, clean | {"CRAB_CRIU": str(tmp_path / "none")}, nothing)
    assert list(report.absent) == ["full"]
    assert any(row.who == "chat" and row.what == "recovered of 1" for row in report.rows)
    assert report.bars == []


def test_an_agent_that_fails_is_a_failure_with_its_last_words():
    with pytest.raises(WorkFailed, match="it ended with 1: KeyError: 'x'"):
        Ended(1, "", "Traceback\nKeyError: 'x'\n").result("it")


def test_every_task_has_questions_and_turns_enough():
    assert len(TASKS) >= 12
    for one in TASKS.values():
        assert 8 <= len(one.script) <= 15, one.name
        assert one.questions, one.name


@pytest.mark.parametrize("name", ["redis", "node-server", "postgresql"])
def test_servers_that_are_installed_do_what_their_tasks_ask(tmp_path, clean, name):
    with Rig(tmp_path / "ground", TASKS[name], clean, free_port(random.Random())) as rig:
        assert not TASKS[name].missing(rig.environ["PATH"])
        env = {"CRAB_DISABLE": "1"}
        found = rig.finish(rig.agent("watched", "--asks", env=env), limit_s=60).result("it")
    assert found["after"][0] == ["absent\n"] * len(TASKS[name].questions)
    assert found["after"][-1] == found["said"][-len(TASKS[name].questions) :]
    assert "absent" not in "".join(found["said"])
