"""The processes of a shell's session: found in ``/proc``, and signalled so that no other is hit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from crabrt.core.config import SHELL_VARIABLE
from crabrt.process import signalling
from crabrt.process.table import Process, children, descendants, look
from crabrt.workspace.procfs import read

_POLL_S: Final = 0.01


def everybody() -> Iterator[Process]:
    """All processes that can be looked at."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # ended, or not ours to see
                process = look(int(name))
                if process is not None and not process.ended:
                    yield process


def inside(init: Process, pid: int) -> Process | None:
    """The child of `init` that has the number `pid` inside the namespace of `init`."""
    for child in children(init.pid):
        with contextlib.suppress(OSError):
            if namespace_pid(child) == pid:
                return look(child)
    return None


def namespace_pid(pid: int) -> int:
    """What number a process has in its own, innermost PID namespace.

    Raises:
        OSError: it has ended, or the kernel does not tell.
    """
    for line in read(b"/proc/%d/status" % pid).splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid


def is_first(pid: int) -> bool:
    """Whether a process is the first one of a PID namespace; False if it has ended."""
    with contextlib.suppress(OSError):
        return namespace_pid(pid) == 1
    return False


def of_namespace(init: Process) -> list[Process]:
    """Everybody in the PID namespace of `init` but itself."""
    with contextlib.suppress(OSError):
        where = os.readlink(f"/proc/{init.pid}/ns/pid")
        return [one for one in everybody() if one.pid != init.pid and _is_in(one.pid, where)]
    return descendants(init.pid)


def _is_in(pid: int, where: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == where
    except OSError:
        return False


def of_session(init: Process, mark: str, sessions: Collection[int]) -> list[Process]:
    """Everybody who descends from `init`, is in one of `sessions`, or carries `mark`.

    Who left the session and cleaned its environment after its parent was gone is not found.
    """
    kin = {one.pid: one for one in descendants(init.pid)}
    within = {*sessions, *(one.session for one in kin.values())}
    spared = {init.pid, os.getpid()}
    return [
        one
        for one in everybody()
        if one.pid not in spared
        and (one.pid in kin or one.session in within or carries(one.pid, mark))
    ]


def carries(pid: int, mark: str) -> bool:
    """Whether a process was started in the shell of that mark, or in a shell below it."""
    name = f"{SHELL_VARIABLE}=".encode()
    try:
        for variable in read(b"/proc/%d/environ" % pid).split(b"\0"):
            if variable.startswith(name):
                return mark.encode() in variable[len(name) :].split(b"/")
    except OSError:
        return False
    return False


def is_alive(process: Process) -> bool:
    """Whether it is still that process, and runs."""
    try:
        now = look(process.pid)
    except OSError:
        return True
    return now is not None and now.started == process.started and not now.ended


def send(process: Process, number: signal.Signals) -> bool:
    """Signal that very process; whether it was there and it was allowed."""
    return is_alive(process) and signalling.send(process.identity, number)


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait for `condition`, asking often; whether it came to be."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def end_all(find: Callable[[], list[Process]], *, grace_s: float, limit_s: float) -> list[Process]:
    """SIGTERM to everybody whom `find` finds, SIGKILL to who stays; who is left after all."""
    asked = find()
    for one in asked:
        send(one, signal.SIGTERM)
        send(one, signal.SIGCONT)
    wait_until(lambda: not any(map(is_alive, asked)), grace_s if asked else 0)

    killed: dict[int, Process] = {}

    def ended() -> bool:
        left = find()
        for one in left:
            send(one, signal.SIGKILL)
            killed[one.pid] = one
        return not left

    is_done = wait_until(ended, limit_s)
    for one in (*asked, *killed.values()):
        _reap(one)
    return [] if is_done else find()


def _reap(process: Process) -> None:
    """Reap a process that came to us when it lost its parent: we may be a subreaper."""
    with contextlib.suppress(OSError):
        now = look(process.pid)
        if now is not None and now.parent == os.getpid() and now.started == process.started:
            os.waitpid(process.pid, os.WNOHANG)
