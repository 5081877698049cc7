"""Processes that stand still while somebody needs that, and go on whatever happens to him.

By SIGSTOP: it works everywhere. Their parents among them see nothing of it (`unseen`). A small
shell beside us knows who was stopped; if we die, it sends SIGCONT.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from crabrt.process import claims, unseen
from crabrt.process.unseen import stands

_GUARD: Final = """
while read -r line; do
    [ "$line" = done ] && exit 0
    pids="$line $pids"
done
[ -z "$pids" ] && exit 0
calm=0
while [ $calm -lt 2 ]; do
    kill -CONT $pids
    [ $((rounds -= 1)) -eq 0 ] && exit 0
    calm=$((calm + 1))
    for pid in $pids; do
        while read -r name value; do
            [ "$name" = TracerPid: ] && [ "$value" != 0 ] && calm=0
        done < /proc/$pid/status
    done
    sleep 0.1
done
"""
"""If we die, CRIU may be at work on them. It leaves them stopped, as it had found them or was told
to: so they are told to go on until it has let go of them, for at most `_ROUNDS` rounds. Who was
told of last goes on first: children."""
_ROUNDS: Final = 600
_STOPS_S: Final = 0.5
_ROUNDS_MOST: Final = 20


class Standstill:
    """See the module. As a context manager: leaving it lets everybody go on.

    Who was stopped before is left so.
    """

    def __init__(self) -> None:
        self._guard = claims.helper(
            lambda: subprocess.Popen(
                ["/bin/sh", "-c", f"rounds={_ROUNDS}\n{_GUARD}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(claims.ENVIRONMENT),
                start_new_session=True,
            )
        )
        self._known: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_on()

    def watch(self, pids: Iterable[int], *, stopped: bool = False) -> None:
        """Have these go on as well, whoever stops them; with `stopped`, somebody has already.

        Parents before children, as it concerns a death of ours.
        """
        fresh = [pid for pid in pids if pid not in self._known and (stopped or not stands(pid))]
        self._known.update(fresh)
        assert self._guard.stdin is not None
        self._guard.stdin.write(b"".join(b"%d\n" % pid for pid in fresh))
        self._guard.stdin.flush()

    def stop(self, pids: Iterable[int]) -> bool:
        """Stop these; whether they all stand (a sleep that nothing interrupts takes its time)."""
        pids = list(pids)
        self.watch(pids)
        running = [pid for pid in pids if not stands(pid)]
        return unseen.stop(running, lambda pid: _send(pid, signal.SIGSTOP), _STOPS_S)

    def stop_all(self, alive: Callable[[], Iterable[int]]) -> bool:
        """Stop all that `alive` names, until it names nobody new; whether they all stand."""
        for _ in range(_ROUNDS_MOST):
            pids = list(alive())
            if not self.stop(pids):
                return False
            if all(pid in self._known or stands(pid) for pid in alive()):
                return True
        return False

    def go_on(self) -> None:
        """Let everybody go on."""
        try:
            unseen.go_on(self._known, lambda pid: _send(pid, signal.SIGCONT))
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        """They have ended, or go on already."""
        self._guard.communicate(b"done\n")


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or another user's
        os.kill(pid, number)
