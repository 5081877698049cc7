"""Starts one program as it once ran, and watches over it until whoever asked has seen enough.

Run by its path, with ``-I -S -X utf8``: it imports nothing of this package, and sets in a process
of its own what a program with threads cannot set between fork and exec. On its standard input a
line of JSON says what to start (see `Start`; bytes that are no UTF-8 as lone surrogates). On its
standard output it tells, a JSON list a line: ``["started", PID]``, ``["failed", STEP, ERRNO]``,
``["lost", TEXT]``, ``["ended", PID, STATUS]`` (as ``waitpid`` gives it). It is the subreaper of
what it started, so that nobody escapes it, until its standard input ends; then it goes, they go on.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
from typing import Any, NoReturn, TypedDict

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.01


class Start(TypedDict):
    """What to start; bytes that are no UTF-8 as lone surrogates."""

    program: str
    arguments: list[str]
    environment: list[str]
    directory: str
    streams: list[tuple[str, int, int]]
    umask: int
    nice: int
    limits: list[tuple[int, int, int]]
    user: tuple[int, int, list[int]] | None
    leads: str


def main() -> None:
    """See the module."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    start: Start = json.loads(line)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(start, tell)
    os.close(tell)
    with open(told, encoding="utf-8") as said:
        lines = said.read().splitlines()
    for one in lines:
        _say(*json.loads(one))
    if not any(json.loads(one)[0] == "failed" for one in lines):
        _say("started", pid)
        _watch()


def _watch() -> None:
    """Tell who ends, until nobody listens any more."""
    while not select.select([sys.stdin], [], [], _POLL_S)[0]:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            continue
        if pid:
            _say("ended", pid, status)


def _say(*words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _become(start: Start, tell: int) -> NoReturn:
    """Be the program; where that fails, say at which step, and end."""
    step = "start it"
    try:
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
            signal.signal(ignored, signal.SIG_DFL)
        if start["leads"] == "session":
            os.setsid()
        elif start["leads"] == "group":
            os.setpgid(0, 0)
        step = "have its limits"
        for number, soft, hard in start["limits"]:
            _limit(number, soft, hard, tell)
        _nice(start["nice"], tell)
        if start["user"] is not None:
            step = "be its user"
            user, group, groups = start["user"]
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
        os.umask(start["umask"])
        step = "enter its directory"
        os.chdir(start["directory"])
        _open(start["streams"], tell)
        step = "execute it"
        variables = dict(one.split("=", 1) for one in start["environment"])
        os.execve(start["program"], start["arguments"], variables)  # noqa: S606  see `recording`
    except (OSError, ValueError) as error:
        why = error.errno if isinstance(error, OSError) else errno.EINVAL
        _write(tell, "failed", step, why)
    os._exit(127)


def _limit(number: int, soft: int, hard: int, tell: int) -> None:
    try:
        if resource.getrlimit(number) != (soft, hard):
            resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        _write(tell, "lost", f"its limit {number} cannot be what it was")


def _nice(value: int, tell: int) -> None:
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) != value:
            os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError:
        _write(tell, "lost", f"its priority cannot be {value}")


def _open(streams: list[tuple[str, int, int]], tell: int) -> None:
    """Standard input, output and error; equal ones share one place in their file."""
    opened: list[int] = []
    for at, stream in enumerate(streams):
        path, flags, position = stream
        if stream in streams[:at]:
            opened.append(opened[streams.index(stream)])
            continue
        try:
            opened.append(_file(path, flags, position))
        except OSError as error:
            name = ("input", "output", "error")[at]
            _write(tell, "lost", f"standard {name} is not {path}: {error.strerror}")
            opened.append(os.open(os.devnull, os.O_RDWR))
    for at, fd in enumerate(opened):  # above 2, as this program has all three
        os.dup2(fd, at)


def _file(path: str, flags: int, position: int) -> int:
    if not path:
        return os.open(os.devnull, os.O_RDWR)
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    extra = (os.O_CREAT if writes else 0) | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags | extra, 0o666)
    os.set_blocking(fd, True)
    if not flags & os.O_APPEND:
        os.lseek(fd, min(position, os.fstat(fd).st_size), os.SEEK_SET)
    return fd


def _write(tell: int, *words: Any) -> None:
    os.write(tell, json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
