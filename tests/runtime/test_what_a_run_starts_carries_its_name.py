"""``CRAB_RUN``: with several live runs in one process, what they start names them all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import crabrt
from crabrt.core.config import RUN_VARIABLE
from crabrt.process.orphans import carried, find_orphans


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    return tmp_path / "one", tmp_path / "two"


class Sleeper:
    """A process that does nothing, with a ``CRAB_RUN`` of its own or the current one."""

    def __init__(self, run: str | None = None) -> None:
        environ = dict(os.environ) if run is None else os.environ | {RUN_VARIABLE: run}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.pid = self._process.pid

    def __enter__(self) -> int:
        return self.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def test_what_the_second_of_two_live_runs_starts_is_found_as_its_own(
    home: Path, two: tuple[Path, Path]
) -> None:
    with crabrt.open_run(workspace=two[0], name="one") as one:
        with crabrt.open_run(workspace=two[1], name="two") as other, Sleeper() as pid:
            assert os.environ[RUN_VARIABLE] == f"{one.id},{other.id}"
            assert pid in [orphan.pid for orphan in find_orphans([other.id])]
            assert pid in [orphan.pid for orphan in find_orphans([one.id])]
        assert os.environ[RUN_VARIABLE] == one.id
    assert RUN_VARIABLE not in os.environ


def test_what_may_be_a_live_runs_is_left_alone(home: Path) -> None:
    with Sleeper("dead-1,alive-1") as pid:
        assert pid not in [o.pid for o in find_orphans(["dead-1"], lambda run: run == "alive-1")]
        assert pid in [o.pid for o in find_orphans(["dead-1"], lambda run: False)]


def test_what_programs_in_between_started_belongs_to_the_outer_run_too(home: Path) -> None:
    with Sleeper("outer-1,other-1/inner-1") as pid:
        for dead, live, found in (
            ("outer-1", "", True),
            ("inner-1", "", True),
            ("inner-1", "outer-1", True),
            ("outer-1", "inner-1", True),
            ("outer-1", "other-1", False),
            ("inner", "", False),
        ):
            orphans = find_orphans([dead], lambda run, live=live: run == live)
            assert (pid in [o.pid for o in orphans]) is found, (dead, live)


def test_a_run_keeps_what_its_program_inherited(ws: Path, monkeypatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "outer-1")
    with crabrt.open_run(workspace=ws) as run:
        assert os.environ[RUN_VARIABLE] == f"outer-1/{run.id}" == carried("outer-1", [run.id])
    assert os.environ[RUN_VARIABLE] == "outer-1"
