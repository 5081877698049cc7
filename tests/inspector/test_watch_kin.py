"""Processes that do not belong to the run are told apart, where the kernel says so."""

import os
import subprocess
import sys

import pytest

from crabrt.core.trees import Entry, Kind
from crabrt.inspector import Observation, classify
from crabrt.inspector.watch.kin import Kin
from crabrt.journal import RunIndex
from crabrt.workspace import Change

WRITE = "import sys; open(sys.argv[1], 'w').write('x'); print(flush=True); sys.stdin.read()"


def child(*arguments, **how):
    return subprocess.Popen(
        [sys.executable, "-S", "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **how,
    )


def finish(process):
    process.communicate()


def test_a_process_and_its_descendants_are_the_runs():
    process = child("import sys; sys.stdin.read()")
    kin = Kin(os.getpid())
    assert kin.owns(os.getpid()) is True
    assert kin.owns(process.pid) is True
    assert Kin(process.pid).owns(os.getpid()) is False
    assert kin.owns(1) is False
    finish(process)


def test_of_a_process_that_ended_it_cannot_be_told():
    process = child("pass")
    finish(process)
    assert Kin(1_000_000_000).owns(process.pid) is None
    assert Kin(os.getpid()).owns(0) is None


def test_a_process_that_left_its_family_is_known_by_its_mark():
    process = child("import sys; print(flush=True); sys.stdin.read()", env={"CRAB_RUN": "r1"})
    process.stdout.readline()  # until then it may still be a copy of this process
    stranger = Kin(1_000_000_000, b"CRAB_RUN=r1")
    assert stranger.owns(process.pid) is True
    assert Kin(1_000_000_000, b"CRAB_RUN=r2").owns(process.pid) is False
    finish(process)


def test_a_process_may_be_marked_by_several_runs():
    process = child("import sys; print(flush=True); sys.stdin.read()", env={"CRAB_RUN": "r1,r2"})
    process.stdout.readline()
    marks = ("CRAB_RUN=r1", "CRAB_RUN=r2", "CRAB_RUN=r", "CRAB_RUN=r1,r2", "RUN=r1")
    owned = [Kin(1_000_000_000, mark.encode()).owns(process.pid) for mark in marks]
    assert owned == [True, True, False, False, False]
    finish(process)


@pytest.mark.root
def test_writers_outside_the_run_are_named(watched):
    """Seen from a run that is somebody else, this process and its children are foreign."""
    watch = watched.open()
    watch._source._feed.kin = Kin(1_000_000_000)
    watch.drain()
    process = child(WRITE, watched.root / "theirs")
    process.stdout.readline()
    assert watch.drain().foreign == {process.pid: frozenset({b"theirs"})}
    finish(process)


BESIDE = """
import sys
go, done, path = sys.argv[1:]
open(go).read()
open(path, "w").write("theirs")
open(done, "w").close()
sys.stdin.read()
"""

LOOP = """
import sys
import crabrt

go, done, ws = sys.argv[1:]

@crabrt.model
def think() -> int:
    return 1

@crabrt.tool
def work() -> None:
    open(f"{ws}/mine", "w").write("mine")
    open(go, "w").close()
    open(done).read()

@crabrt.agent(workspace=ws, observer="fanotify")
def loop() -> str:
    think()
    work()
    return crabrt.current_run().id

print(loop())
"""


@pytest.mark.root
def test_writers_outside_the_run_are_in_the_evidence_of_its_turn(ws, tmp_path):
    go, done = tmp_path / "go", tmp_path / "done"
    os.mkfifo(go)
    os.mkfifo(done)
    beside = child(BESIDE, go, done, ws / "theirs")
    argv = [sys.executable, "-c", LOOP, go, done, ws]
    run = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    with RunIndex.open(tmp_path / "home") as index:
        index.refresh()
        (turn,) = index.turns(run)[1:]
    finish(beside)
    assert turn.observer.startswith("fanotify")
    assert (turn.verdict, turn.files_added) == (("files",), 2)
    assert turn.evidence == (
        "files: mine new, theirs new",
        f"theirs: may be written by process {beside.pid}, which is not the run's",
    )


@pytest.mark.parametrize(
    ("foreign", "line"),
    [
        ({b"a": {7}}, "a: may be written by process 7, which is not the run's"),
        ({b"b": {9, 8}}, "b: may be written by processes 8, 9, which are not the run's"),
        ({b"a": {7}, b"b": {8}}, "a, b: may be written by processes 7, 8, which are not the run's"),
        ({b"other": {7}}, None),
        ({}, None),
    ],
)
def test_only_what_changed_is_said_to_be_written_by_others(foreign, line):
    made = [Entry(name, Kind.FILE, 0o644, 0, 0) for name in (b"a", b"b")]
    changes = tuple(Change(one.name, ("added",), None, one) for one in made)
    pids = {path: frozenset(who) for path, who in foreign.items()}
    found = classify((), Observation(changes, foreign=pids))
    plain = classify((), Observation(changes))
    assert found.evidence == (*plain.evidence, *([] if line is None else [line]))
    assert (found.effects, found.sample) == (plain.effects, plain.sample)


@pytest.mark.root
def test_writers_of_the_run_are_not(watched):
    watch = watched.open()
    process = child(WRITE, watched.root / "mine")
    process.stdout.readline()
    dirty = watch.drain()
    assert dirty.places == {b"": frozenset({b"mine"})}
    assert dirty.foreign == {}
    finish(process)
