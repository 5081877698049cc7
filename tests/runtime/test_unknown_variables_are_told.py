"""A mistyped ``CRAB_*`` variable does nothing: a run says so, once, and goes on."""

import subprocess
import sys
import warnings

import pytest

import crabrt
from crabrt.runtime import settings


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(settings, "_told", set())


def test_a_run_warns_of_a_mistyped_variable_once(tmp_path, monkeypatch, untold):
    monkeypatch.setenv("CRAB_OBSERVR", "fanotify")
    monkeypatch.setenv("CRAB_XYZZY", "1")
    (tmp_path / "ws").mkdir()

    def run():
        with crabrt.open_run(workspace=tmp_path / "ws", home=tmp_path / "home", name="n") as run:
            assert run.tool_call("t", {}, lambda: 7) == 7

    with pytest.warns(crabrt.SettingWarning) as told:
        run()
    assert [str(one.message) for one in told] == [
        "crabrt: CRAB_OBSERVR is set, and is no setting; did you mean CRAB_OBSERVER?",
        "crabrt: CRAB_XYZZY is set, and is no setting",
    ]
    assert {one.filename for one in told} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()


def test_a_command_that_only_looks_does_not_warn(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "crabrt", "runs"],
        env={"CRAB_HOME": str(tmp_path), "CRAB_OBSERVR": "scan", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CRAB_OBSERVR" not in done.stderr
