"""Sessions that were begun outside of a PID namespace: CRIU images nobody who is in one.

``unshare --pid --fork COMMAND`` begins no session, nor do some sandboxes: all in it have the
session 0 then, of which CRIU cannot know whom to make its leader.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Final

from crabrt.process.criu.causes import Cause, NotImaged
from crabrt.workspace.procfs import read

NEXT_STEP: Final = "start the agent in a session of its own: `setsid --wait COMMAND`"


def is_ours_outside() -> bool:
    """Whether this process is in such a session, and so is all that it starts without another."""
    return os.getsid(0) == 0


def refuse_outside(processes: Iterable[int]) -> None:
    """Before anything is touched: nobody may be in such a session.

    Raises:
        NotImaged: who is, and what helps.
    """
    for pid in processes:
        with contextlib.suppress(OSError):  # it ended
            if _is_outside(pid):
                raise NotImaged(
                    f"the session of process {pid} was begun outside of its PID namespace, and "
                    f"CRIU images no such process: {NEXT_STEP}",
                    Cause.SESSION,
                    where=f"process {pid}",
                )


def _is_outside(pid: int) -> bool:
    lines = read(b"/proc/%d/status" % pid).splitlines()
    return any(line.startswith(b"NSsid:") and line.split()[-1] == b"0" for line in lines)
