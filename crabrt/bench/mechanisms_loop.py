"""The agent whose processes are imaged, and the restores of them, each in a process of its own.

The loop does as it is told, call by call: so whoever measures knows when it stands between what a
tool did and the end of the turn, and when it waits for its model.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import crabrt
from crabrt.bench import mechanisms_content
from crabrt.bench.apart import Link
from crabrt.bench.harness import timed
from crabrt.core.config import Config
from crabrt.core.targets import parse_target
from crabrt.journal import RunIndex
from crabrt.operations.alive import imaging
from crabrt.operations.restoring import restore_state
from crabrt.operations.targets import resolve
from crabrt.runtime import open_run
from crabrt.runtime.run import Run
from crabrt.store import Store
from crabrt.workspace import Workspace

LIMIT_S = 120.0
_POLL_S = 0.002


def program(*words: object) -> list[str]:
    """What runs `mechanisms_content`."""
    return [sys.executable, "-I", mechanisms_content.__file__, *map(str, words)]


def start_holder(address: Path, size_bytes: int, seed: int, directory: Path) -> int:
    """Start a process that holds so much memory, and wait until it does; its number.

    Raises:
        TimeoutError: it does not come.
    """
    address.unlink(missing_ok=True)
    child = subprocess.Popen(
        program("hold", address, size_bytes, seed),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    child.returncode = 0  # nobody waits for it
    end = time.monotonic() + LIMIT_S
    while not address.exists():
        if time.monotonic() > end:
            raise TimeoutError("the process that holds memory does not come")
        time.sleep(_POLL_S)
    return child.pid


def ask(address: Path, *words: object) -> str:
    """Have the holder do something; what its memory is then.

    Raises:
        OSError: it is not there.
    """
    port = int(address.read_text().split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        client.sendall(" ".join(map(str, words)).encode() or b"say")
        return client.recv(100).decode()


def hosted(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """A run that is told its tool calls, as JSON lists of words. A `Work`.

    It says ``{"thinks": turn}`` when it is to be told what to do next, and ``{"did": answer}`` when
    a tool is done, whose turn ends with the next line.

    Args:
        arguments: ``workspace``, ``size``, ``seed``, ``address`` of the holder; with ``port``, a
            shell and a server in it are what the run has alive.
        link: tells.
    """
    workspace = Path(arguments["workspace"])
    imaging(Config.from_env())  # CRIU is tried out once in a process's life: not in a figure
    with open_run(workspace=workspace, name="mechanisms") as run:
        hands = _Hands(arguments, workspace)
        turn = 1
        while line := _told(run, link, turn):
            words = line.split()
            run.tool_call(words[0], {"words": words}, lambda words=words: _act(hands, words, link))
            turn += 1
    return {}


def _told(run: Run, link: Link, turn: int) -> str:
    def model() -> str:
        link.say({"thinks": turn, "run": run.id})
        return link.listen()

    return str(run.model_call({"turn": turn}, model))


def _act(hands: _Hands, words: list[str], link: Link) -> str:
    answer = hands.act(words)
    link.say({"did": answer})
    link.listen()
    return answer


class _Hands:
    """What the tool calls do."""

    def __init__(self, arguments: dict[str, Any], workspace: Path) -> None:
        self._given, self._workspace = arguments, workspace
        self._shell: crabrt.Shell | None = None

    def act(self, words: list[str]) -> str:
        given, address = self._given, Path(self._given["address"])
        match words[0]:
            case "start":
                return str(start_holder(address, given["size"], given["seed"], self._workspace))
            case "change":
                return ask(address, *words)
            case "shell":
                return self._in_shell(given["port"])
            case _:
                return ""

    def _in_shell(self, port: int) -> str:
        """A server, started in a shell that has variables and a function."""
        self._shell = crabrt.Shell(cwd=self._workspace)
        served = f"{sys.executable} -m http.server --bind 127.0.0.1 {port} > /dev/null 2>&1 &"
        self._shell.run("count=1; add() { count=$((count + $1)); echo $count; }; add 41")
        self._shell.run(served)
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_S)
            else:
                return str(os.getpid())


def restored(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Restore a state in place, as ``crab restore`` does. A `Work`.

    ``trial_ms``: CRIU is tried out first, once in a process's life; ``restore_ms``: all that comes
    then, until everybody is alive. ``missing``: who is not, and why.

    Args:
        arguments: ``workspace``, ``target``.
        link: not needed.
    """
    del link
    config = Config.from_env()
    store = Store.open(config.home)
    with store.writer() as writer, RunIndex.open(config.home) as index:
        index.refresh()
        state = resolve(index, parse_target(arguments["target"]))
        workspace = Workspace.open(Path(arguments["workspace"]), config.home)
        trial_ms, by = timed(lambda: imaging(config))
        restore_ms, done = timed(
            lambda: restore_state(index, writer, workspace, state, force=True, by=lambda: by)
        )
    revival = done.processes
    return {
        "trial_ms": trial_ms,
        "restore_ms": restore_ms,
        "missing": [one.why for one in (*revival.missing, *revival.lost)],
        "processes": [list(one) for one in revival.processes],
    }
