"""The whole way in a terminal (tmux): turns arrive, one is opened, an earlier one comes back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

AGENT = """
import sys
from pathlib import Path
import crabrt
workspace = Path(sys.argv[1])
with crabrt.open_run(workspace=workspace, home=sys.argv[2], name="live") as run:
    print(run.id, flush=True)
    for line in sys.stdin:
        text = line.strip()
        run.model_call([{"role": "user", "content": text}], lambda: "reply to " + text)
        file = workspace / "file"
        run.tool_call("write_" + text, {"text": text}, lambda: file.write_text(text))
        run.checkpoint()
        print("done", flush=True)
"""


class Tmux:
    """A terminal of its own, with its own server."""

    def __init__(self, socket):
        self._base = ["tmux", "-f", "/dev/null", "-S", str(socket)]

    def call(self, *words):
        return subprocess.run(
            [*self._base, *words], check=True, capture_output=True, text=True
        ).stdout

    @property
    def text(self):
        return self.call("capture-pane", "-p", "-t", "s")

    def keys(self, *keys):
        self.call("send-keys", "-t", "s", *keys)

    def until(self, word, limit_s=30.0):
        end = time.monotonic() + limit_s
        while word not in self.text:
            assert time.monotonic() < end, f"{word!r} is not to be seen:\n{self.text}"
            time.sleep(0.05)
        return self.text

    def until_it_ends(self, limit_s=20.0):
        end = time.monotonic() + limit_s
        words = [*self._base, "has-session"]
        while subprocess.run(words, check=False, capture_output=True).returncode == 0:
            assert time.monotonic() < end, self.text
            time.sleep(0.05)


@pytest.fixture
def tmux(tmp_path):
    if shutil.which("tmux") is None:
        pytest.fail("tmux is not installed")
    one = Tmux(tmp_path / "tmux")
    yield one
    subprocess.run([*one._base, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def agent(home, workspace):
    workspace.mkdir()
    argv = [sys.executable, "-c", AGENT, str(workspace), str(home)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_run_is_watched_and_an_earlier_turn_comes_back(tmux, agent, home, workspace):
    run = agent.stdout.readline().strip()

    def act(text):
        agent.stdin.write(text + "\n")
        agent.stdin.flush()
        assert agent.stdout.readline() == "done\n"

    act("one")
    tmux.call(
        "new-session", "-d", "-s", "s", "-x", "110", "-y", "30",
        sys.executable, "-m", "crabrt", "tui", run, "--home", str(home),
    )  # fmt: skip
    tmux.until("write_one")
    assert "▶ running" in tmux.text
    act("two")
    tmux.until("write_two")
    act("three")
    tmux.until("write_three")
    tmux.keys("Up", "Enter")
    tmux.until(f"{run}@2")
    tmux.keys("4")
    tmux.until("+two")
    tmux.keys("]", "1")
    tmux.until("not yet")
    act("four")
    tmux.until("F files")
    tmux.keys("4")
    tmux.until("+three")
    tmux.keys("Escape")
    tmux.until("write_two")
    agent.stdin.close()
    tmux.until("ended done")
    assert agent.wait() == 0
    tmux.keys("Home", "Down", "y")
    tmux.until("in tmux's buffer")
    assert tmux.call("show-buffer") == f"{run}@1"
    tmux.keys("r")
    tmux.until("Do it?")
    assert (workspace / "file").read_text() == "four"
    tmux.keys("d")
    tmux.until("Done.")
    assert (workspace / "file").read_text() == "one"
    tmux.keys("Escape")
    tmux.until("files restored")
    tmux.keys("u")
    tmux.until("Do it?")
    tmux.keys("d")
    tmux.until("Done.")
    assert (workspace / "file").read_text() == "four"
    tmux.keys("Escape")
    tmux.until("undone")
    tmux.keys("q")
    tmux.until_it_ends()
