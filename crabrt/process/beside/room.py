"""PID and mount namespaces in which images of plain processes come back under their numbers.

Every number is free there, and the fork's files lie where the original's are. The first process is
`keeper`; the trees are its children. From then on all of it is one tree with namespaces of its own,
and is imaged as such.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from crabrt.process import claims, namespaces, table
from crabrt.process.beside.network import Network
from crabrt.process.criu import Bind, Criu, restore, wire
from crabrt.process.signalling import send
from crabrt.process.table import Process

_KEEPER: Final = Path(__file__).with_name("keeper.py")
_READY: Final = b"ready"
_START_LIMIT_S: Final = 20.0
_END_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.005
_BEYOND: Final = 1000
_NUMBERS: Final = 'echo "$1" > /proc/sys/kernel/ns_last_pid; shift; exec setsid "$@"'
"""CRIU and its helpers get numbers that the image does not need; as the leader of a session it can
give the tree one, where that of the image's is outside of it."""
_CLOCKS: Final[Mapping[str, bytes | None]] = MappingProxyType({"timens-0.img": None})
"""A later image can be of one time namespace, which is the keeper's: that of the machine."""


class Room:
    """Started at once; ends with everybody in it. Not started again.

    Args:
        network: what its processes are in.
        binds: what they see elsewhere.

    Attributes:
        keeper: its first process, as this process numbers it; a child of it, or of init.

    Raises:
        OSError: it cannot be started: it takes root, and util-linux.
    """

    def __init__(self, network: Network, binds: Sequence[Bind]) -> None:
        pairs = [os.fsdecode(path) for bind in binds for path in bind]
        argv = [*network.within, "unshare", *namespaces.OPTIONS, "setsid"]
        argv += [sys.executable, "-I", "-S", str(_KEEPER), _READY.decode(), *pairs]
        self._child = claims.helper(
            lambda: subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            self._await_ready()
            self.keeper = self._only_child()
        except BaseException:
            self._abandon()
            raise
        self._let_go()

    def _await_ready(self) -> None:
        assert self._child.stdout is not None
        until, said = time.monotonic() + _START_LIMIT_S, b""
        while not said.endswith(_READY):
            left_s = until - time.monotonic()
            part = b""
            if left_s > 0 and select.select([self._child.stdout], [], [], left_s)[0]:
                part = os.read(self._child.stdout.fileno(), 1 << 12)
            if not part:
                told = said.decode("utf-8", "backslashreplace").strip()
                raise OSError(f"no namespaces can be made for it: {told or 'no answer in time'}")
            said += part

    def _only_child(self) -> Process:
        for pid in table.children(self._child.pid):
            found = table.look(pid)
            if found is not None and not found.ended:
                return found
        raise OSError("the first process of its namespaces ended at once")

    def _let_go(self) -> None:
        """Whoever waits outside of the namespaces is not needed: nobody has to see the end."""
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._child.kill()
        self._child.wait()

    def _abandon(self) -> None:
        with contextlib.suppress(OSError):
            for pid in table.children(self._child.pid):
                os.kill(pid, signal.SIGKILL)
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.end()

    def everybody(self) -> list[Process]:
        """Who is in it, its first process first.

        Raises:
            OSError: they cannot be listed.
        """
        return [self.keeper, *table.descendants(self.keeper.pid)]

    def end(self) -> None:
        """End everybody in it, and wait for that; not for ever."""
        until = time.monotonic() + _END_LIMIT_S
        while time.monotonic() < until:
            found = table.look(self.keeper.pid)
            if found is None or found.identity != self.keeper.identity:
                return
            send(found.identity, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(found.pid, os.WNOHANG)
            time.sleep(_POLL_S)

    def restore(self, criu: Criu, images: Path, grown: Sequence[str] = ()) -> int:
        """Bring a tree back in here; the number of its topmost process, a child of the keeper.

        Args:
            criu: which CRIU.
            images: of processes that had no namespaces of their own; not changed.
            grown: as for ``criu.restore``.

        Raises:
            NotRevived: as ``criu.restore``. Nothing of the tree is left.
        """
        within = ["nsenter", f"--target={self.keeper.pid}", "--pid", "--mount", "--net", "--"]
        within += ["sh", "-c", _NUMBERS, "sh", str(_beyond(_numbers(images)))]
        return restore(
            criu, images, grown=grown, within=within, room=self.keeper.pid, changed=_CLOCKS
        )


def _numbers(images: Path) -> list[int]:
    """All that the processes of an image and their threads have."""
    try:
        tasks = wire.read_tasks((images / "pstree.img").read_bytes())
    except (OSError, wire.NotUnderstood):
        return [1]  # the restore says so
    return [number for task in tasks for number in (task.pid, *task.threads)]


def _beyond(numbers: Sequence[int]) -> int:
    """A number such that those after it are far from all of these."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    far = max(numbers) + _BEYOND
    while far < most - _BEYOND and any(0 <= one - far < _BEYOND for one in numbers):
        far += _BEYOND
    return (
        far
        if far < most - _BEYOND
        else next(
            low
            for low in range(_BEYOND, most, _BEYOND)
            if not any(0 <= one - low < _BEYOND for one in numbers)
        )
    )
