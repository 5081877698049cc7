"""How long a shell and a server take to come back: `crab restore`, in place, of a run that died.

Twice: where both are alive still (then they are imaged first, as the point that `crab undo` goes
back to, and end), and where nobody is.
"""

from __future__ import annotations

import random
import socket
import sys

from crabrt.bench import trees
from crabrt.bench.brood import Brood
from crabrt.bench.harness import settle, timed
from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_images import Loop, Where
from crabrt.bench.recovery_rig import free_port
from crabrt.bench.report import FLOOR, OURS, Samples

ALIVE = "restore, where both are alive"
DEAD = "restore, where nobody is"
COMMAND = "crab restore, where nobody is"

_ENTRIES = 200
_RESTORED = "crabrt.bench.mechanisms_loop:restored"


class ShellAndServer:
    """One round.

    Args:
        where: a ground of its own.
        number: of the round.
        found: is told everything.
    """

    def __init__(self, where: Where, number: int, found: Found) -> None:
        self._where, self._found = where, found
        self._port = free_port(random.Random(number))  # noqa: S311  any will do
        trees.make_tree(where.workspace, _ENTRIES)

    def measure(self) -> None:
        """A run makes them and is killed; they are restored.

        Raises:
            WorkFailed: something could not be done.
        """
        where, times = self._where, self._found.times
        arguments = {
            "workspace": str(where.workspace),
            "address": str(where.ground / "address"),
            "port": self._port,
        }
        with Brood() as brood:
            loop = Loop(brood, arguments, where.seen)
            made = loop.take("shell")
            times.add(OURS, {"snapshot, frozen": made.frozen_ms, "snapshot": made.capture_ms})
            loop.kill()
            target = f"{loop.run}@{made.turn}"
            self._restore(ALIVE, target, brood, times)
            brood.end_all()
            self._restore(DEAD, target, brood, times)
            brood.end_all()
            self._command(target, brood, times)

    def _restore(self, what: str, target: str, brood: Brood, times: Samples) -> None:
        settle(self._where.ground)
        words = {"workspace": str(self._where.workspace), "target": target}
        done = brood.apart(_RESTORED, words, self._where.seen).result
        self._found.wrong.extend(f"{what}: {why}" for why in done["missing"])
        self._check(what)
        times.add(
            OURS,
            {
                what: done["restore_ms"],
                f"{what}, CRIU tried out first": done["restore_ms"] + done["trial_ms"],
            },
        )

    def _command(self, target: str, brood: Brood, times: Samples) -> None:
        """The whole command, beside one that does nothing."""
        settle(self._where.ground)
        log, crab = self._where.ground / "log", [sys.executable, "-m", "crabrt"]
        seen = self._where.seen
        restore = [*crab, "restore", "--force", target]
        took_ms = timed(lambda: brood.run(restore, log, seen))[0]
        self._check(COMMAND)
        nothing_ms = timed(lambda: brood.run([*crab, "--version"], log, seen))[0]
        times.add(OURS, {COMMAND: took_ms})
        times.add(FLOOR, {"crab --version": nothing_ms})

    def _check(self, what: str) -> None:
        """The server answers."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                said = client.recv(12)
        except OSError as error:
            said = str(error).encode()
        if said != b"HTTP/1.0 200":
            self._found.wrong.append(f"{what}: the server says {said!r}")
