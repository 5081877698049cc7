"""A signal goes to that very process or to nobody: its number may be another's by now."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from crabrt.process import table


def send(who: tuple[int, int], number: int) -> bool:
    """Send a signal; whether that process was there, and it was allowed.

    By a descriptor, and after a look at whose that is: what it leads to stays the same process. One
    of which only the first thread has ended takes it as well.

    Args:
        who: number and start time (`table.Process.identity`).
        number: of the signal.
    """
    try:
        handle = os.pidfd_open(who[0])
    except OSError:
        return False
    try:
        found = table.look(who[0])
        if found is None or found.identity != who:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:  # ended just now, or another user's
        return False
    finally:
        os.close(handle)
    return True


def last_first(processes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same in the order to end them in: each before its parent and the first of its session.

    When one of those ends, the kernel lets stopped jobs go on, with SIGHUP (credentials(7),
    setpgid(2)); what they do about that would come after everybody was stopped, and looked at.
    """
    wanted = list(dict.fromkeys(processes))
    by_pid = {who[0]: who for who in wanted}
    above: dict[int, set[int]] = {}
    for pid, _ in wanted:
        above[pid] = set()
        with contextlib.suppress(OSError):
            found = table.look(pid)
            if found is not None:
                above[pid] = ({found.parent, found.session} & by_pid.keys()) - {pid}
    try:
        order = list(TopologicalSorter(above).static_order())
    except CycleError:  # a number went to somebody else while they were looked at
        return wanted[::-1]
    return [by_pid[pid] for pid in reversed(order)]
