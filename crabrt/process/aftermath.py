"""What somebody who was killed had begun with processes goes on without him, and is waited for.

CRIU lives on when its caller is killed, and holds the tree until it has finished: nobody else can
take an image of it then. And the guard of a `standstill` lets processes go on for a moment yet,
whoever has stopped them by then.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from crabrt.process import table

_DUMP: Final = b"dump"
_LETS_GO_ON: Final = b"kill -CONT $pids"
"""What only the command of such a guard has in it."""
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.02


def await_dumps(spools: Collection[Path], limit_s: float, say: Callable[[str], None]) -> bool:
    """Wait until no image is taken below `spools` any more, and no guard is at work for the dead.

    Args:
        spools: of callers that are dead.
        limit_s: for no longer than that.
        say: is told, once, if that takes a while.

    Returns:
        Whether that is so within the time.
    """
    began, below = time.monotonic(), tuple(os.fsencode(one) + b"/" for one in spools)
    is_said = False
    while (busy := next(_busy(below), None)) is not None:
        waited_s = time.monotonic() - began
        if waited_s > limit_s:
            return False
        if waited_s > _PATIENCE_S and not is_said:
            is_said = True
            say(
                f"waiting until process {busy} is done: it takes an image for somebody who was "
                f"killed ({limit_s:.0f} s at most)"
            )
        time.sleep(_POLL_S)
    return True


def _busy(below: tuple[bytes, ...]) -> Iterator[int]:
    """The numbers of those that are at it."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            words = table.command(int(name))
            is_dump = _DUMP in words and any(word.startswith(below) for word in words)
            is_guard = any(_LETS_GO_ON in word for word in words[2:3])
            if is_dump or (is_guard and _is_left(int(name))):
                yield int(name)


def _is_left(guard: int) -> bool:
    """Whether whoever held the other end of a guard's standard input is dead.

    Another reader of a pipe takes nothing from the first one, as long as it only asks.
    """
    with contextlib.suppress(OSError):  # it ended, or is another user's
        fd = os.open(f"/proc/{guard}/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return any(what & select.POLLHUP for _, what in poll.poll(0))
        finally:
            os.close(fd)
    return False
