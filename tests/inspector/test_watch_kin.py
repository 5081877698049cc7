"""Processes that do not belong to the run are told apart, where the kernel says so."""

import os
import subprocess
import sys

import pytest

from crabrt.inspector.watch.kin import Kin

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


@pytest.mark.root
def test_writers_of_the_run_are_not(watched):
    watch = watched.open()
    process = child(WRITE, watched.root / "mine")
    process.stdout.readline()
    dirty = watch.drain()
    assert dirty.places == {b"": frozenset({b"mine"})}
    assert dirty.foreign == {}
    finish(process)
