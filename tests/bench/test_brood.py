"""A benchmark's processes: wherever they go they are collected when they end, and ended at last."""

from __future__ import annotations

import os
import time

import pytest

from crabrt.bench.apart import WorkFailed
from crabrt.bench.brood import Brood
from crabrt.process import table

LEAVES_AN_ORPHAN = "setsid sleep {seconds} & echo $! > {path}"


def wait_until(condition, limit_s=20):
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


@pytest.fixture
def orphan(tmp_path):
    """Start one in a brood; its number."""

    def start(brood, seconds):
        command = LEAVES_AN_ORPHAN.format(seconds=seconds, path=tmp_path / "pid")
        brood.run(["sh", "-c", command], tmp_path / "log", os.environ)
        return int((tmp_path / "pid").read_text())

    return start


def test_an_orphan_that_ends_is_collected(orphan):
    with Brood() as brood:
        pid = orphan(brood, 0.2)
        found = table.look(pid)
        assert found is not None
        assert found.parent == os.getpid(), "it came to us"
        wait_until(lambda: table.look(pid) is None)


def test_who_lives_at_the_end_is_ended(orphan):
    with Brood() as brood:
        pid = orphan(brood, 99)
        assert not table.look(pid).ended
    assert table.look(pid) is None


def test_what_is_awaited_keeps_its_status(tmp_path):
    with Brood() as brood:
        for _ in range(5):
            with pytest.raises(WorkFailed, match="sh ended with 7: no"):
                brood.run(["sh", "-c", "echo no; exit 7"], tmp_path / "log", os.environ)


def test_who_was_there_before_is_left_alone(orphan, tmp_path):
    with Brood() as outer:
        pid = orphan(outer, 99)
        with Brood():
            pass
        assert not table.look(pid).ended
