"""A user without any privilege, and without CRIU: servers come back from their commands.

All of it runs as nobody, from a copy of the package that nobody may read: the checkout and its
environment may lie where he may not look.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import crabrt
from crabrt.process import table

HERE = Path(__file__).parent
SAID = "['one', '1 sekrit', '11\\n', '2 sekrit', '111\\n', '3 sekrit', 'two']\n"
NOBODY = 65534
AS_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture(scope="session")
def readable():
    """A directory that everybody may read, with the package and what it needs."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        shutil.copytree(Path(crabrt.__file__).parent, top / "crabrt",
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        for distribution in needed():
            copy(distribution, top)
        shutil.copy(HERE / "serving.py", top)
        everybody_may_read(top)
        yield top


def needed():
    """The distributions that the package cannot do without."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    waiting, found = [*project["dependencies"]], {}
    while waiting:
        one = Requirement(waiting.pop())
        if one.name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found[one.name] = importlib.metadata.distribution(one.name)
            waiting += found[one.name].requires or []
    return found.values()


def copy(distribution, top):
    for file in distribution.files:
        if ".." not in file.parts and file.suffix != ".pyc":
            (top / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), top / file)


def everybody_may_read(top):
    for directory, _, files in os.walk(top):
        os.chmod(directory, 0o755)
        for file in files:
            os.chmod(os.path.join(directory, file), 0o644)


@pytest.fixture(scope="session")
def python(readable):
    """An interpreter that nobody may run, and that the copied packages are for."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys._base_executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        with contextlib.suppress(OSError):
            env = {"PYTHONPATH": str(readable), "PATH": os.defpath}
            code = "import crabrt.__main__, msgspec"
            command = [program, "-c", code]
            if subprocess.run(command, env=env, cwd="/", check=False, **AS_NOBODY).returncode == 0:
                return program
    raise AssertionError(f"there is no {version} that everybody may run")


def free_ports(number):
    """Such as nobody is given by chance."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with contextlib.ExitStack() as held:
        found = []
        for port in random.sample(range(1024, low), 100):
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
                if len(found) == number:
                    return found
    raise AssertionError("every port is taken")


class Nobody:
    """Somebody with a workspace and a store."""

    def __init__(self, top, readable, python, until):
        self.until = until
        self.top, self.readable, self.python = top, readable, python
        self.ws, self.home = top / "ws", top / "home"
        self.ws.mkdir()
        for path in (top, self.ws):
            os.chown(path, NOBODY if AS_NOBODY else -1, -1)
        self.port, self.counter_port = free_ports(2)
        self.env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(readable), "LC_ALL": "C.UTF-8"}
        self.env |= {"HOME": str(top), "TMPDIR": str(top), "CRAB_HOME": str(self.home)}
        self.env |= {"CRAB_NETWORK_OBSERVER": "off", "PYTHONDONTWRITEBYTECODE": "1"}

    def call(self, *argv, cwd=None, **env):
        return subprocess.run(
            [self.python, *map(str, argv)], env=self.env | env, cwd=cwd or self.top, text=True,
            capture_output=True, timeout=100, check=False, **AS_NOBODY,
        )  # fmt: skip

    def run(self, *words, **env):
        program = self.readable / "serving.py"
        return self.call(program, self.ws, self.port, self.counter_port, *words, **env)

    def killed(self, at):
        assert self.run(at).returncode == -signal.SIGKILL
        self.until(lambda: not self.answers(self.port) and not self.answers(self.counter_port))

    def crab(self, *words, **env):
        return self.call("-m", "crabrt", *words, RESUMED="1", **env)

    def typed(self, answer, *words):
        """What a terminal shows, and the exit code, where the question is answered so."""
        terminal, side = pty.openpty()
        child = subprocess.Popen(
            [self.python, "-m", "crabrt", *map(str, words)], env=self.env, cwd=self.top,
            stdin=side, stdout=side, stderr=side, **AS_NOBODY,
        )  # fmt: skip
        os.close(side)
        shown = b""
        with contextlib.suppress(OSError):  # it is closed when the last one there has gone
            while select.select([terminal], [], [], 60)[0]:
                shown += os.read(terminal, 1 << 16)
                if answer and shown.endswith(b"again? [y/N]: "):
                    os.write(terminal, answer)
                    answer = b""
        os.close(terminal)
        return child.wait(20), shown.decode()

    def data(self, *words, **env):
        done = self.crab(*words, "--json", **env)
        return done.returncode, json.loads(done.stdout)["data"]

    def answers(self, port):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20):
            return True
        return False

    def page(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(1 << 16), b"")).split(b"\r\n\r\n")[1]

    def count(self):
        with socket.create_connection(("127.0.0.1", self.counter_port), timeout=20) as client:
            return client.recv(100)

    def servers(self):
        """All processes with one of the ports in their command, shells left out."""
        ports = {b"%d" % self.port, b"%d" % self.counter_port}
        found = []
        for name in os.listdir("/proc"):
            if name.isdecimal():
                words = table.command(int(name))
                if ports & set(words) and not words[0].endswith(b"sh"):
                    found.append(int(name))
        return found

    def close(self):
        mark = f"CRAB_HOME={self.home}".encode()
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdecimal() and mark in Path(f"/proc/{name}/environ").read_bytes():
                    os.kill(int(name), signal.SIGKILL)


@pytest.fixture
def nobody(readable, python, until):
    with tempfile.TemporaryDirectory() as name:
        made = Nobody(Path(name), readable, python, until)
        yield made
        made.close()


def test_a_loop_that_is_not_killed_ends_so(nobody):
    done = nobody.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == SAID
    if AS_NOBODY:
        assert (nobody.ws / "site").stat().st_uid == NOBODY


def test_what_is_not_back_is_told_and_comes_back_if_it_may(nobody):
    nobody.killed(6)
    plain = nobody.crab("restore", "last@4")
    assert plain.returncode == 3, plain.stdout + plain.stderr
    assert "processes that are not back:" in plain.stdout
    assert f"cd {nobody.ws}/site && " in plain.stdout
    assert "crab restore serving-" in plain.stdout
    assert (nobody.ws / "site" / "page").read_text() == "one"
    assert not nobody.answers(nobody.port)
    done = nobody.crab("restore", "last@4", "--respawn")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("started again: ") == 2
    assert "rebuilt when its loop goes on: " in done.stdout
    assert nobody.page() == b"one"
    assert nobody.count() == b"2 sekrit", "its count is in a file, which was restored"


def test_it_can_be_tried_again_and_taken_back(nobody):
    """Nothing is ever started twice."""
    nobody.killed(6)
    assert nobody.crab("restore", "last@5", "--respawn").returncode == 0
    before = nobody.servers()
    assert len(before) == 2
    exit_code, data = nobody.data("restore", "last@4", "--respawn")
    assert exit_code == 0
    after = nobody.servers()
    assert len(after) == 2
    assert not set(before) & set(after)
    assert sorted(one["pid"] for one in data["processes_started"]) == sorted(after)
    assert data["processes"] == 2
    assert [one["pid"] for one in data["processes_ended"]] != []
    assert nobody.page() == b"one"
    assert nobody.crab("undo", nobody.ws, "--respawn").returncode == 0
    assert nobody.count() == b"3 sekrit"
    assert len(nobody.servers()) == 2
    undone = nobody.crab("undo", nobody.ws, "--force")
    assert undone.returncode == 3, undone.stdout
    assert f"`crab undo {nobody.ws} --respawn`" in undone.stdout
    assert nobody.servers() == []


def test_a_restore_that_is_killed_while_it_starts_them_is_finished(nobody):
    nobody.killed(6)
    mark = nobody.top / "mark"
    argv = ["-m", "crabrt.testing.crash", "--kill-at", "restore_log.appended:3", "--mark", mark]
    main = nobody.readable / "crabrt" / "__main__.py"
    done = nobody.call(*argv, main, "restore", "last@4", "--respawn", RESUMED="1")
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert mark.read_text() == "restore_log.appended:3"
    before = nobody.servers()
    assert len(before) == 2
    assert nobody.crab("restore", "last@4", "--respawn").returncode == 0
    assert len(nobody.servers()) == 2
    assert not set(before) & set(nobody.servers())


@pytest.mark.parametrize("at", [2, 3, 4, 5, 6])
def test_a_resumed_loop_finds_its_servers_and_its_shell(nobody, at):
    """What a shell has started ends with it; what was started again is not the shell's."""
    nobody.killed(at)
    done = nobody.crab("resume", "last", "--yes", "--respawn", KEEP="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] + "\n" == SAID
    assert len(nobody.servers()) == (1 if at < 4 else 2)
    assert "Warning" not in done.stderr, "a server's log is its own: nobody replaces it"
    before = (nobody.ws / "log").read_text()
    nobody.page()
    nobody.until(lambda: len((nobody.ws / "log").read_text()) > len(before))


def test_a_resume_shows_what_it_would_start(nobody):
    nobody.killed(6)
    shown = nobody.crab("resume", "last", "--dry-run")
    assert shown.returncode == 0
    assert re.search(r"`crab resume serving-\w+ --respawn` starts these again", shown.stdout)
    exit_code, data = nobody.data("resume", "last", "--dry-run", "--respawn")
    assert exit_code == 0
    assert [one[-1] for one in data["would_start"]] == [str(nobody.port), str(nobody.counter_port)]
    assert nobody.servers() == []
    shown = nobody.crab("resume", "last", "--dry-run", "--respawn").stdout
    assert shown.count("To be started again: cd ") == 2
    assert "Started again" not in shown, "it is not yet"


def test_a_loop_that_may_not_start_them_is_told(nobody):
    nobody.killed(6)
    done = nobody.crab("resume", "last", "--yes", KEEP="1")
    assert done.returncode == 0, "its last turns are answered from the journal"
    assert f"{nobody.port} " in done.stderr
    assert 'respawn="always" (CRAB_RESPAWN) lets its recorded command be run again' in done.stderr
    assert nobody.servers() == []


def test_a_port_that_is_taken_is_named_and_the_files_are_restored(nobody):
    nobody.killed(6)
    with socket.create_server(("127.0.0.1", nobody.port)):
        done = nobody.crab("restore", "last@4", "--respawn")
    assert done.returncode == 3
    assert f"tcp 127.0.0.1:{nobody.port} is taken" in done.stdout
    assert (nobody.ws / "site" / "page").read_text() == "one"
    assert nobody.count() == b"2 sekrit", "the other one is back"
    assert nobody.crab("restore", "last@4", "--respawn", "--force").returncode == 0
    assert nobody.page() == b"one"


def test_nobody_is_shown_what_an_environment_holds(nobody):
    """Its values lie in the store, which is its owner's alone."""
    nobody.killed(6)
    for words in (
        ("show", "last@3"), ("show", "last@4", "--json"), ("log", "last", "--json"),
        ("restore", "last@4", "--dry-run"), ("restore", "last@4", "--json"),
        ("resume", "last", "--dry-run", "--respawn"), ("restore", "last@3", "--respawn", "--force"),
    ):  # fmt: skip
        done = nobody.crab(*words)
        assert done.returncode in {0, 3}, done.stderr
        shown = done.stdout + done.stderr
        assert "http.server" in shown
        assert "HOME=" not in shown
        assert "sekrit" not in shown.replace("export MY_API_KEY=sekrit", "").replace("1 sekrit", "")
    assert nobody.home.stat().st_mode & 0o777 == 0o700


def test_a_dry_run_starts_nothing_and_says_what_it_would(nobody):
    nobody.killed(6)
    done = nobody.crab("restore", "last@4", "--dry-run", "--respawn")
    assert done.returncode == 0
    assert done.stdout.count("would be started again: cd ") == 2
    assert nobody.servers() == []


@pytest.mark.parametrize("answer", [b"y\n", b"n\n", b"\n"])
def test_at_a_terminal_the_user_is_asked(nobody, answer):
    nobody.killed(6)
    code, shown = nobody.typed(answer, "restore", "last@4")
    assert "No image brings these back." in shown
    assert "\r\n  cd " in shown
    allowed = answer == b"y\n"
    assert code == (0 if allowed else 3), shown
    assert nobody.answers(nobody.port) == allowed
    assert ("started again: " in shown) == allowed


@pytest.mark.parametrize("setting", ["always", "never"])
def test_the_users_own_setting_says_it_for_good(nobody, setting):
    nobody.killed(6)
    config = nobody.top / ".config" / "crabrt"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'respawn = "{setting}"\n')
    done = nobody.crab("restore", "last@4")
    assert done.returncode == (0 if setting == "always" else 3), done.stdout + done.stderr
    assert nobody.answers(nobody.port) == (setting == "always")


def test_a_workspace_may_not_say_it(nobody):
    (nobody.ws / "crab.toml").write_text('respawn = "always"\n')
    done = nobody.run()
    assert done.returncode != 0
    assert "'respawn' may not be set there" in done.stderr


@pytest.mark.parametrize("more", ["--files-only", "--to", "site", "--conversation-only"])
def test_it_is_for_whole_restores_in_place(nobody, more):
    nobody.killed(1)
    words = [more, nobody.top / "elsewhere"] if more == "--to" else [more]
    done = nobody.crab("restore", "last@0", *words, "--respawn")
    assert done.returncode == 2
    assert "--respawn is for a restore of everything, in place" in done.stderr


GOES_BACK = """
import json, os, subprocess, sys, time, urllib.request
import crabrt
from crabrt.process import table
port, respawn = sys.argv[2:]

@crabrt.model
def think(turn):
    return turn

@crabrt.tool
def sh(command):
    subprocess.run(command, shell=True, check=True)

@crabrt.tool
def get():
    for _ in range(500):
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=20)
            return page.read().decode()
        except OSError:
            time.sleep(0.01)
    return "nobody there"

def alive():
    return [one.pid for one in table.descendants(os.getpid()) if not one.ended]

@crabrt.agent(workspace=sys.argv[1], name="back", respawn=respawn)
def loop():
    think(0)
    server = f"{sys.executable} -m http.server --bind 127.0.0.1 {port}"
    sh(f"echo one > page; {server} 2> log > /dev/null &")
    think(1)
    said, before = [get()], alive()
    sh("echo two > page")
    think(2)
    said.append(get())
    crabrt.current_run().rollback(to=1)
    think(3)
    said.append(get() if respawn == "always" else "not asked")
    think(4)
    after = alive()
    for pid in after:
        os.kill(pid, 9)
    think(5)
    sh("true")
    think(6)
    left = [one.pid for one in table.descendants(os.getpid())]
    return said, len(before), len(after), bool(set(before) & set(after)), left

print(json.dumps(loop()))
"""  # fmt: skip


@pytest.mark.parametrize("setting", ["always", "ask"])
def test_a_loop_that_goes_back_has_its_server_again_if_it_may(nobody, setting):
    """The run looks after the one that was started again, and nobody is left uncollected."""
    (nobody.readable / "goes_back.py").write_text(GOES_BACK)
    (nobody.readable / "goes_back.py").chmod(0o644)
    done = nobody.call(nobody.readable / "goes_back.py", nobody.ws, nobody.port, setting,
                       cwd=nobody.ws)  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, before, after, is_same, left = json.loads(done.stdout)
    assert said[:2] == ["one\n", "two\n"]
    assert (said[2], after) == (("one\n", 1) if setting == "always" else ("not asked", 0))
    assert (before, is_same, left) == (1, False, [])
    assert ('respawn="always"' in done.stderr) == (setting == "ask")
