"""An agent that is a program, run in one workspace and store, and killed at failpoints."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import crabrt
from crabrt.core.entries import Noted
from crabrt.core.ids import object_id
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.process import table

AGENT = Path(__file__).with_name("counting.py")


def _mark(home: Path) -> str:
    return object_id(os.fsencode(home)).hex()[:16]


class Agent:
    """Runs of an agent, by default the counting one."""

    def __init__(self, top: Path, criu: Path, program: Path = AGENT) -> None:
        self.top, self.program = top, program
        self.ws, self.home = top / "ws", top / "home"
        self.ws.mkdir()
        self._env = {name: v for name, v in os.environ.items() if not name.startswith("CRAB_")}
        self._env |= {"CRAB_HOME": str(self.home), "CRAB_CRIU": str(criu)}
        self._env |= {"XDG_CONFIG_HOME": str(top / "config"), "CRAB_NETWORK_OBSERVER": "off"}
        self._pids: set[int] = set()

    def run(
        self, *words: object, resume: str = "", kill_at: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the agent; with `kill_at` (``NAME:HIT``) it dies there, and must."""
        extra = {"CRAB_RESUME": resume} if resume else {}
        return self._killed([str(self.program), str(self.ws), *map(str, words)], extra, kill_at)

    def crab(self, *words: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``crab``; `kill_at` as in `run`."""
        if not kill_at:
            return self._called([sys.executable, "-m", "crabrt", *words], {})
        return self._killed(
            [str(Path(crabrt.__file__).with_name("__main__.py")), *words], {}, kill_at
        )

    def _killed(self, argv, extra, kill_at):
        if not kill_at:
            return self._called([sys.executable, *argv], extra)
        mark = self.top / "mark"
        mark.unlink(missing_ok=True)
        launcher = ["-m", "crabrt.testing.crash", "--kill-at", kill_at, "--mark", str(mark)]
        done = self._called([sys.executable, *launcher, *argv], extra)
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        assert mark.read_text() == kill_at
        return done

    def _called(self, argv, extra):
        done = subprocess.run(
            argv,
            env=self._env | extra,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            # The session around the tests may begin outside of their PID namespace.
            start_new_session=True,
        )
        self._note()
        return done

    def _note(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._pids.add(self.server)

    @property
    def server_lives(self) -> bool:
        """Whether the server is there, and is not stopped."""
        found = table.look(self.server)
        return found is not None and not found.ended and found.state not in "Tt"

    @property
    def spools(self) -> list[Path]:
        """All directories of images that are not in the store, of this store's runs."""
        spools = [self.home / "spool", *Path("/dev/shm").glob(f"crabrt-*/{_mark(self.home)}")]
        return [path for top in spools for path in top.rglob("*") if path.is_dir()]

    @property
    def server(self) -> int:
        return int((self.ws / "address").read_text().split()[0])

    def add(self, number: int) -> int:
        port = int((self.ws / "address").read_text().split()[1])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"%d" % number)
            return int(client.recv(100))

    @property
    def last(self) -> str:
        """The id of the last run."""
        with RunIndex.open(self.home) as index:
            index.refresh()
            return index.find("last").run

    def turns(self):
        with RunIndex.open(self.home) as index:
            index.refresh()
            return [turn for turn in index.turns(self.last) if turn.turn]

    def notes(self, topic: str) -> list[str]:
        with RunIndex.open(self.home) as index:
            index.refresh()
            run = index.find("last").run
        bodies = [record.body for record in read_journal(run_dir(self.home, run))]
        return [body.text for body in bodies if isinstance(body, Noted) and body.topic == topic]

    def end_server(self, where: str) -> None:
        """End the server of the directory `where` in the workspace, if it has one."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.ws / where / "address").read_text().split()[0]), signal.SIGKILL)

    def close(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(OSError):
                if b"address" in b"".join(table.command(pid)):
                    os.kill(pid, signal.SIGKILL)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
