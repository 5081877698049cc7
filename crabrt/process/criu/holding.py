"""Something done while a tree stands still: after its images are written, before it goes on.

CRIU calls a script at that moment (``post-dump``) and waits for it. Ours says so through one pipe
and waits at another one for a line, or for its end. Both are this process's, which the script opens
by their path in ``/proc``: when we die they are gone, whatever the script is at. So nobody stands
still for longer than we live, and never longer than a limit of its own.

Only a script that was told to go on succeeds. With any other end CRIU lets the tree go on and fails
itself (criu/cr-dump.c, ``cr_dump_finish``): what was done meanwhile was done beside a tree that
may have run, and there is no image to go with it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crabrt.process.criu.calling import Call, Limit
from crabrt.process.criu.causes import Cause, NotImaged

_SCRIPT: Final = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
cd /proc/{owner}/fd &&
timeout {limit} sh -c 'echo held > {told} && read -r word < {waits} && [ "$word" = go ]' && exit 0
: > "$0{ended}"
exit 1
"""
_ENDED: Final = "-ended"
"""What the script appends to its name for a file that says that it was not told to go on. CRIU ends
with a status of its own."""

_GOES_ON_S: Final = 0.25
"""What it takes to let a tree go on, generously."""


class Hold:
    """What is done meanwhile. A context manager round the call of CRIU.

    Args:
        work: is done once the tree stands still, by the thread that waits for CRIU. If it raises,
            the tree goes on and the error goes up.
        limit_s: after that the tree goes on all the same, and has no image; in whole seconds, at
            least one.
    """

    def __init__(self, work: Callable[[], None], limit_s: float = 30.0) -> None:
        self._work = work
        self._limit_s = max(1, round(limit_s))
        self._fds: tuple[int, ...] = ()
        self._script = Path()

    def __enter__(self) -> Self:
        self._fds = (*os.pipe(), *os.pipe())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = ()

    def options(self, directory: Path) -> list[str]:
        """What CRIU is to be called with; `directory` is for this call alone."""
        _, told, waits, _ = self._fds
        self._script = directory / "action"
        self._script.write_text(
            _SCRIPT.format(
                owner=os.getpid(), told=told, waits=waits, limit=self._limit_s, ended=_ENDED
            )
        )
        self._script.chmod(0o700)
        return ["--action-script", str(self._script)]

    def wait(
        self,
        call: Call,
        limit: Limit,
        last: Callable[[], None] = lambda: None,
        where: str | None = None,
    ) -> int | None:
        """As `Call.wait`, with the work done in between, and `last` after it, come what may.

        Where the tree has gone on by then there is no `last`.

        Args:
            call: of CRIU.
            limit: as for `Call.wait`.
            last: is done before the tree is told to go on.
            where: which tree, for people.

        Raises:
            NotImaged: the tree went on before it was told to.
        """
        held, _, _, go = self._fds
        is_held = self._is_held(call, held, limit)
        if is_held:
            over, word = Limit(self._limit_s), b"late\n"
            try:
                try:
                    self._work()
                finally:
                    if over.left_s and call.wait(0) is None:
                        last()
                        word = b"go\n"
            finally:
                os.write(go, word)
        status = call.wait(limit.but_at_least(_GOES_ON_S))  # its images are written
        if status is None or not os.path.exists(f"{self._script}{_ENDED}"):
            return status
        if is_held:
            text = f"it went on after {self._limit_s} s, before all was copied beside it"
            raise NotImaged(text, Cause.TIME_LIMIT, where=where)
        text = "it could not be held while files are copied"
        raise NotImaged(text, Cause.OTHER, where=where, hint="that takes timeout(1)")

    def _is_held(self, call: Call, held: int, limit: Limit) -> bool:
        """Wait until the tree stands still; False if CRIU ends, or the time does, without that."""
        ended = os.pidfd_open(call.pid)
        try:
            poll = select.poll()
            poll.register(held, select.POLLIN)
            poll.register(ended, select.POLLIN)
            return any(fd == held and what & select.POLLIN for fd, what in limit.poll(poll))
        finally:
            os.close(ended)
