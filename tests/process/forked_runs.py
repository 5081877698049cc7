"""A run that is alive, forks of it, and who works in which directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import crabrt
from crabrt.process import table
from crabrt.process.beside import network

AGENT = Path(__file__).with_name("forkable.py")
LIMIT_S = 60


def ended(pid: int) -> bool:
    found = table.look(pid)
    return found is None or found.ended


class Place:
    """The workspace of a run, and who works in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> tuple[int, int]:
        """The server's number and port, as itself knows them."""
        pid, port = (self.path / "address").read_text().split()
        return int(pid), int(port)

    @property
    def counted(self) -> list[int]:
        """What the server logged."""
        return [int(line) for line in (self.path / "log").read_text().split()]

    @property
    def server(self) -> int:
        """The server's number here: whoever works in this very directory, and listens."""
        here = self.path.stat()
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                there = os.stat(f"/proc/{name}/cwd")
                is_here = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
                if is_here and b"create_server" in b"".join(table.command(int(name))):
                    found.append(int(name))
        (pid,) = found
        return pid

    def ask(self, number: int) -> tuple[int, str]:
        """What the server counts to, and the name in its directory; asked where it is."""
        code = (
            "import socket, sys\n"
            "with socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20) as server:\n"
            "    server.sendall(sys.argv[2].encode())\n"
            "    print(server.recv(100).decode())"
        )
        command = [sys.executable, "-c", code, str(self.address[1]), str(number)]
        done = subprocess.run(
            [*network.into(self.server), *command], capture_output=True, text=True, check=True
        )
        count, name = done.stdout.split()
        return int(count), name


class Original(Place):
    """A run that waits in a model call, alive; and what ``crab`` does beside it."""

    def __init__(self, top: Path, criu: Path) -> None:
        super().__init__(top / "ws")
        self.top = top
        self.path.mkdir()
        self._env = {name: v for name, v in os.environ.items() if not name.startswith("CRAB_")}
        self._env |= {"CRAB_HOME": str(top / "home"), "CRAB_CRIU": str(criu)}
        self._env |= {"XDG_CONFIG_HOME": str(top / "config"), "CRAB_NETWORK_OBSERVER": "off"}
        self._env |= {"CRAB_GATE_LIMIT_MS": "60000"}
        self._loop: subprocess.Popen[bytes] | None = None

    def begin(self, *words: object, program: Path = AGENT, wait_at: int = 4, **env: str) -> None:
        """Run it up to the call that it waits in."""
        argv = [sys.executable, str(program), *map(str, words or (7, wait_at))]
        self._begin(argv, self._env | env)
        end = time.monotonic() + LIMIT_S
        while self.turns()[wait_at]["checkpoint"] != "durable":
            assert time.monotonic() < end
            time.sleep(0.05)

    def begin_fork(self, run: str) -> None:
        """Resume it up to the same call."""
        self.close_loop()
        (self.top / "waiting").unlink()
        self._begin([sys.executable, "-m", "crabrt", "resume", run, "--yes"], self._env)

    def _begin(self, argv: list[str], env: dict[str, str]) -> None:
        with open(self.top / "output", "wb") as output:
            self._loop = subprocess.Popen(
                argv,
                env=env,
                cwd=self.path,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + LIMIT_S
        while not (self.top / "waiting").exists():
            assert self._loop.poll() is None, (self.top / "output").read_text()
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill_loop(self) -> None:
        """The loop alone, as by the kernel: its processes go on."""
        assert self._loop is not None
        self._loop.kill()
        assert self._loop.wait() == -signal.SIGKILL

    def interrupt(self) -> None:
        """Ctrl-C for the loop alone, which ends."""
        assert self._loop is not None
        self._loop.send_signal(signal.SIGINT)
        self._loop.wait(LIMIT_S)

    def turns(self, run: str = "last") -> list[dict[str, object]]:
        return self.data("log", run)["turns"]

    def data(self, *words: str) -> dict:
        done = self.crab(*words, "--json")
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        return json.loads(done.stdout)["data"]

    def crab(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.called(sys.executable, "-m", "crabrt", *words, **env)

    def called(self, *argv: object, **env: str) -> subprocess.CompletedProcess[str]:
        """A program, with the store and the settings of the run."""
        return subprocess.run(
            list(map(str, argv)), env=self._env | env, cwd=self.top,
            capture_output=True, text=True, timeout=100, check=False, start_new_session=True,
        )  # fmt: skip

    def killed(self, kill_at: str, *words: str) -> None:
        """``crab``, which dies there by SIGKILL, and must."""
        mark = self.top / "mark"
        launcher = ["-m", "crabrt.testing.crash", "--kill-at", kill_at, "--mark", str(mark)]
        program = str(Path(crabrt.__file__).with_name("__main__.py"))
        done = self.called(sys.executable, *launcher, program, *words)
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        assert mark.read_text() == kill_at

    def fork(self, target: str, name: str = "fork") -> tuple[str, Place]:
        """A new run from there, with a name of its own in its files."""
        made = self.data("fork", target, "--to", str(self.top / name))
        return made["run"], Place(self.top / name)

    def parent_of(self, run: str) -> str:
        """The run that it was forked from."""
        (parent,) = [one["parent"] for one in self.data("runs") if one["run"] == run]
        return str(parent)

    def close_loop(self) -> None:
        if self._loop is not None:
            self._loop.kill()
            self._loop.wait()

    def close(self) -> None:
        self.close_loop()
        end = time.monotonic() + LIMIT_S
        while left := [pid for pid in self._ours() if not ended(pid)]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < end
            time.sleep(0.02)

    def _ours(self) -> list[int]:
        """Who was started with this store, or lives with somebody who was."""
        mark = f"CRAB_HOME={self._env['CRAB_HOME']}".encode()
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                if mark in environment and int(name) != os.getpid():
                    found.append(int(name))
        return found


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
