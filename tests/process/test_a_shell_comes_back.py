"""`crabrt.Shell` in a run: killed with its loop or without it, with images and without."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.core.entries import Noted
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.process import table

AGENT = Path(__file__).with_name("shelling.py")
SAID = "['', '11\\n', '111\\n/\\n', '', '1111\\nusr\\n', '11111\\n']\n"

pytestmark = pytest.mark.root


@pytest.fixture
def run(tmp_path):
    """Runs the agent; what it wrote, or None if it was killed."""
    (tmp_path / "ws").mkdir()
    clean = {name: v for name, v in os.environ.items() if not name.startswith("CRAB_")}
    clean |= {
        "CRAB_HOME": str(tmp_path / "home"),
        "CRAB_NETWORK_OBSERVER": "off",
        "CRAB_GATE_LIMIT_MS": "60000",
    }
    clean |= {"XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*words: object, **env: str) -> str | None:
        argv = [sys.executable, str(AGENT), str(tmp_path / "ws"), *map(str, words)]
        done = subprocess.run(
            argv, env=clean | env, capture_output=True, text=True, timeout=100, check=False
        )
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((tmp_path / "init").read_text()), signal.SIGKILL)


def turns(tmp_path):
    with RunIndex.open(tmp_path / "home") as index:
        index.refresh()
        return index.turns(index.find("last").run)


def notes(tmp_path, topic: str) -> list[str]:
    with RunIndex.open(tmp_path / "home") as index:
        index.refresh()
        run = index.find("last").run
    bodies = [record.body for record in read_journal(run_dir(tmp_path / "home", run))]
    return [body.text for body in bodies if isinstance(body, Noted) and body.topic == topic]


@pytest.mark.parametrize("isolation", ["namespace", "session"])
@pytest.mark.parametrize("turn", [2, 4])
@pytest.mark.parametrize("how", ["loop", "all"])
def test_a_shell_goes_on_where_it_was(run, criu, until, tmp_path, isolation, turn, how):
    env = {"CRAB_CRIU": str(criu.program), "ISOLATION": isolation}
    assert run(6, turn, how, **env) is None
    init = int((tmp_path / "init").read_text())
    if how == "all":
        until(lambda: (found := table.look(init)) is None or found.ended)
    assert run(6, CRAB_RESUME="last", **env) == SAID
    if turn == 4:  # by then a turn with the shell is durable, however slow the machine
        assert bool(notes(tmp_path, "revived")) == (how == "all")
    assert (tmp_path / "ws" / "count").read_text() == "111\n"


@pytest.mark.parametrize("how", ["loop", "all"])
def test_without_images_a_shell_is_rebuilt_from_what_bash_could_tell(run, tmp_path, how):
    env = {"CRAB_CRIU": str(tmp_path / "nothing")}
    assert run(6, 4, how, **env) is None
    assert run(6, CRAB_RESUME="last", **env) == SAID
    unprotected = [reason for turn in turns(tmp_path) for reason in turn.unprotected]
    assert any("has no image: there is no program" in reason for reason in unprotected)


def channels(tmp_path) -> list[Path]:
    return list((tmp_path / "runtime" / "crabrt").glob("*"))


def test_a_rebuilt_shell_leaves_no_channels_of_the_one_before(run, tmp_path):
    env = {"CRAB_CRIU": str(tmp_path / "nothing"), "XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
    assert run(6, 4, "all", **env) is None
    (before,) = channels(tmp_path)
    assert run(6, CRAB_RESUME="last", **env) == SAID
    assert before not in channels(tmp_path)


@pytest.mark.parametrize("verb", [("gc",), ("rm", "last", "--yes")], ids=["gc", "rm"])
def test_channels_of_a_shell_that_is_no_more_are_removed(run, criu, until, tmp_path, verb):
    env = {"CRAB_CRIU": str(criu.program), "XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
    assert run(6, 4, "loop", **env) is None
    (directory,) = channels(tmp_path)

    def tidy():
        subprocess.run(
            [sys.executable, "-m", "crabrt", verb[0], *verb[1:]],
            env=os.environ | env | {"CRAB_HOME": str(tmp_path / "home")},
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    os.utime(directory, (0, 0))
    if verb[0] == "gc":
        tidy()
        assert directory.exists()  # its shell lives
    init = int((tmp_path / "init").read_text())
    everybody = [init, *(one.pid for one in table.descendants(init))]
    for pid in everybody:
        with contextlib.suppress(ProcessLookupError):  # the first of a namespace ends all of it
            os.kill(pid, signal.SIGKILL)
    until(lambda: all((found := table.look(pid)) is None or found.ended for pid in everybody))
    for name in directory.glob("command-*"):
        name.unlink()
    os.utime(directory, (0, 0))
    tidy()
    assert not directory.exists()
    if verb[0] == "gc":
        assert run(6, CRAB_RESUME="last", **env) == SAID
