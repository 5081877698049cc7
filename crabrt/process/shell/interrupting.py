"""Ending the command that a shell is at, and neither the shell nor what it has in the background.

Bash tells nobody which of its jobs is in the foreground: with a terminal the kernel would know. But
while it waits for one it starts no other, so that is the group it started last, if it waits for one
at all: it is asked first, by a SIGINT to itself, which ends loops, ``wait`` and ``read``, and makes
it drop the rest of the command. Only jobs that were not there when the command began count; one
that ``fg`` brought back was, and is found out by stopping it, which a waiting bash notices.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from crabrt.process.shell.members import everybody, is_alive, send
from crabrt.process.table import Process, children, look
from crabrt.workspace.procfs import read

SOFT_S: Final = 0.1
"""How long bash itself may take to come back after a SIGINT, before its job gets one."""

_STEP_S: Final = 2.0
_LAST_S: Final = 5.0
_KILLED_S: Final = 1.0
_PATIENCE: Final = 5
_PROBE_S: Final = 0.3
_IGNORED: Final = b"SigIgn:"

Waiter = Callable[[float], bool]
"""Waits so many seconds for the command's end, and tells whether it came."""


class Foreground(NamedTuple):
    """A command that a shell is at.

    Attributes:
        shell: bash.
        before: children that it had when the command began.
    """

    shell: Process
    before: frozenset[int]

    def ask(self, came_back: Waiter) -> bool:
        """SIGINT, as Ctrl-C would: to the shell, then to its job; whether the command ended."""
        self._signal_own(signal.SIGINT)
        for _ in range(_PATIENCE):
            if came_back(SOFT_S):
                return True
            if not self._is_busy():
                break
        self._signal_job(signal.SIGINT)
        return came_back(SOFT_S)

    def end(self, came_back: Waiter) -> bool:
        """SIGINT, SIGTERM, SIGKILL, with time in between; at last SIGKILL to whatever it starts.

        Returns:
            Whether the shell came back. If not, no signal but SIGKILL to itself will end it.
        """
        if self.ask(came_back) or came_back(_STEP_S):
            return True
        self._signal_own(signal.SIGTERM, spared=True)
        self._signal_job(signal.SIGTERM)
        if came_back(_STEP_S):
            return True
        until = time.monotonic() + _LAST_S
        while time.monotonic() < until:
            self._signal_own(signal.SIGINT)
            self._signal_own(signal.SIGKILL, spared=True)
            if not self._signal_job(signal.SIGKILL) and self._end_older(came_back):
                return True
            if came_back(_KILLED_S):
                return True
        return False

    def _is_busy(self) -> bool:
        """Whether bash runs, or could: then it waits for no job."""
        with contextlib.suppress(OSError):
            now = look(self.shell.pid)
            return now is not None and now.state == "R"
        return False

    def _signal_own(self, number: signal.Signals, *, spared: bool = False) -> None:
        """To the shell's own group: itself and what has no group of its own, as substitutions.

        Args:
            number: the signal.
            spared: not to the shell, nor to what ignores SIGINT as jobs do in the background of a
                shell without job control.
        """
        for one in everybody():
            if one.group != self.shell.group:
                continue
            if spared and (one.pid == self.shell.pid or _ignores_interrupts(one.pid)):
                continue
            _signal(one, number)

    def _signal_job(self, number: signal.Signals) -> bool:
        groups = self._groups(older=False)
        if groups:
            _signal_group(groups[0], number)
        return bool(groups)

    def _groups(self, *, older: bool) -> list[int]:
        """Groups of the shell's jobs, the last started first."""
        jobs = []
        for pid in children(self.shell.pid):
            with contextlib.suppress(OSError):
                one = look(pid)
                if one is not None and not one.ended and one.group != self.shell.group:
                    jobs.append(one)
        jobs.sort(key=lambda one: (one.started, one.pid), reverse=True)
        return list(dict.fromkeys(job.group for job in jobs if (job.pid in self.before) == older))

    def _end_older(self, came_back: Waiter) -> bool:
        """Find and end a job that ``fg`` brought back."""
        if self._is_busy():
            return False
        for group in self._groups(older=True):
            _signal_group(group, signal.SIGSTOP)
            if came_back(_PROBE_S):
                _signal_group(group, signal.SIGKILL)
                return True
            _signal_group(group, signal.SIGCONT)
        return False


def _signal_group(group: int, number: signal.Signals) -> None:
    for one in everybody():
        if one.group == group:
            _signal(one, number)


def _signal(process: Process, number: signal.Signals) -> None:
    """What is stopped goes on, to take the signal."""
    send(process, number)
    if number in {signal.SIGINT, signal.SIGTERM}:
        send(process, signal.SIGCONT)


def _ignores_interrupts(pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        for line in read(b"/proc/%d/status" % pid).splitlines():
            if line.startswith(_IGNORED):
                return bool(int(line[len(_IGNORED) :], 16) >> (signal.SIGINT - 1) & 1)
    return False


def is_at_prompt(shell: Process, channel: bytes) -> bool:
    """Whether `shell` waits for a line on `channel`, and not for anything else.

    During a command its standard input is another. Where the system call it is in cannot be seen,
    sleeping with that input is taken for it.
    """
    try:
        opened = os.readlink(b"/proc/%d/fd/0" % shell.pid).removesuffix(b" (deleted)")
        if opened != channel or not is_alive(shell):
            return False
        call = read(b"/proc/%d/syscall" % shell.pid).split()
    except OSError:
        return False
    # read(2) is number 0 or 63, and its descriptor 0.
    return len(call) < 2 or (call[0] in {b"0", b"63"} and call[1] == b"0x0")
