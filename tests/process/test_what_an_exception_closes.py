"""A run that ends by an exception, or by Ctrl-C, is resumed with the shell that its loop was in.

The loop holds it by ``with``, so it is closed on the way out. With real CRIU, and without any.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).with_name("closing.py")

pytestmark = pytest.mark.root


class Runs:
    """The closing agent in a directory."""

    def __init__(self, top: Path) -> None:
        self.top, self.ws = top, top / "ws"
        self.ws.mkdir()
        (top / "runtime").mkdir(mode=0o700)
        clean = {name: v for name, v in os.environ.items() if not name.startswith("CRAB_")}
        clean |= {"CRAB_HOME": str(top / "home"), "CRAB_NETWORK_OBSERVER": "off"}
        clean |= {"XDG_CONFIG_HOME": str(top / "config"), "CRAB_GATE_LIMIT_MS": "60000"}
        self.env = clean | {"XDG_RUNTIME_DIR": str(top / "runtime")}

    def begin(self, *words: object, **env: str) -> subprocess.Popen[bytes]:
        with open(self.top / "output", "wb") as output:
            return subprocess.Popen(
                [sys.executable, "-X", "faulthandler", str(AGENT), *map(str, words)],
                cwd=self.ws, env=self.env | env, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def ended(self, loop: subprocess.Popen[bytes]) -> str:
        """What it said of how it ended, which was not well."""
        try:
            loop.wait(100)
        except subprocess.TimeoutExpired:
            loop.send_signal(signal.SIGABRT)  # it says where it is
            loop.wait()
        told = (self.top / "output").read_text()
        assert loop.returncode not in {0, -signal.SIGKILL, -signal.SIGABRT}, told
        return told

    def ended_whole(self, loop: subprocess.Popen[bytes]) -> str:
        """The same; and nothing of it is left."""
        told = self.ended(loop)
        assert self.processes() == []
        assert self.channels() == []
        return told

    def resumed(self, **env: str) -> tuple[str, str]:
        """What it said once it was mended; and what warnings there were."""
        (self.top / "mended").touch()
        command = [sys.executable, "-m", "crabrt", "resume", "last", "--yes"]
        done = subprocess.run(
            command, cwd=self.ws, env=self.env | env,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, " ".join(done.stderr.split())

    def channels(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.top / "runtime" / "crabrt")
        return []

    def processes(self) -> list[int]:
        """Who runs with this store."""
        mark, found = f"CRAB_HOME={self.top / 'home'}".encode(), []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
        return found

    def close(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def runs(tmp_path):
    made = Runs(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def ctrl_c():
    """As in a terminal: whoever is started in the background ignores it, and what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted(runs, until):
    """Ctrl-C for a loop that waits for its model."""

    def interrupt(loop: subprocess.Popen[bytes]) -> None:
        until(lambda: (runs.top / "waiting").exists() or loop.poll() is not None)
        loop.send_signal(signal.SIGINT)

    return interrupt


KINDS = pytest.mark.parametrize(
    "kind", [{}, {"ASYNC": "1"}, {"NESTED": "1"}, {"ISOLATION": "session"}],
    ids=["plain", "async", "nested", "session"],
)  # fmt: skip


@KINDS
@pytest.mark.parametrize("how", ["raise", "wait"])
def test_shell_and_server_are_back_where_they_were(runs, criu, interrupted, kind, how):
    env = {"CRAB_CRIU": str(criu.program), **kind}
    loop = runs.begin(4, 3, how, **env)
    if how == "wait":
        interrupted(loop)
    assert ("the API is down" if how == "raise" else "KeyboardInterrupt") in runs.ended_whole(loop)
    assert (runs.ws / "said").read_text() == "3 3\n"
    said, told = runs.resumed(**env)
    assert said == "6 6\n"
    assert "is not back" not in told
    assert runs.processes() == []  # the loop has left the block


@pytest.mark.parametrize("kind", [{}, {"ASYNC": "1"}], ids=["plain", "async"])
def test_a_shell_that_came_back_ends_with_its_block_though_nobody_used_it(runs, criu, kind):
    env = {"CRAB_CRIU": str(criu.program), **kind}
    runs.ended_whole(runs.begin(4, 4, **env))
    said, told = runs.resumed(**env)
    assert said == "6 6\n"
    assert "is not back" not in told
    assert runs.processes() == []


def test_it_may_fail_again_before_it_comes_to_its_shell(runs, criu):
    env = {"CRAB_CRIU": str(criu.program)}
    runs.ended_whole(runs.begin(4, 3, **env))
    runs.ended_whole(runs.begin(4, 3, **env, CRAB_RESUME="last"))
    said, told = runs.resumed(**env)
    assert said == "6 6\n"
    assert "is not back" not in told


def test_a_second_interrupt_while_the_last_image_is_taken(runs, criu, interrupted):
    twice, waiting = runs.top / "twice", runs.top / "waiting"
    program = runs.top / "criu"
    program.write_text(
        f'#!/bin/sh\ncase " $* " in *" dump "*) [ ! -e {twice} ] || '
        f"{{ rm {twice}; kill -INT $(cat {waiting}); }};; esac\n"
        f'exec {criu.program} "$@"\n'
    )
    program.chmod(0o755)
    env = {"CRAB_CRIU": str(program), "BUSY": "1"}
    loop = runs.begin(4, 3, "wait", **env)
    twice.touch()
    interrupted(loop)
    runs.ended_whole(loop)
    assert not twice.exists()  # it came then
    said, told = runs.resumed(**env)
    assert said == "6 6\n"
    assert "is not back" not in told


def test_without_images_the_shell_is_rebuilt_and_who_is_not_back_is_named(runs, tmp_path):
    env = {"CRAB_CRIU": str(tmp_path / "nothing")}
    runs.ended_whole(runs.begin(4, 3, **env))
    (runs.ws / "address").write_text("0 1")  # nobody listens there
    said, told = runs.resumed(**env)
    assert said == "6 \n"
    assert "server.py" in told
    assert "is not back: it has no image" in told


def test_without_images_what_ran_in_it_is_started_again_where_that_is_allowed(runs, tmp_path):
    env = {"CRAB_CRIU": str(tmp_path / "nothing"), "CRAB_RESPAWN": "always"}
    runs.ended_whole(runs.begin(4, 3, **env))
    said, told = runs.resumed(**env)
    assert said == "6 3\n"  # bash knows its variables; the server counts from 0 again
    assert "is not back" not in told


def test_a_resume_that_stops_before_its_loop_goes_on_leaves_what_lives(runs, tmp_path, until):
    """Nobody could bring it back: there are no images."""
    env = {"CRAB_CRIU": str(tmp_path / "nothing")}
    loop = runs.begin(4, 3, "wait", **env)
    until((runs.top / "waiting").exists)
    loop.kill()
    loop.wait()
    living = set(runs.processes())
    assert living
    stopped = runs.begin(4, 3, **env, CRAB_RESUME="last", OTHERWISE="1")
    assert "Diverged" in runs.ended(stopped)
    assert set(runs.processes()) == living
    said, _ = runs.resumed(**env)
    assert said == "6 6\n"
