"""A signal goes to that very process or to nobody: its number may be another's by now."""

from __future__ import annotations

import os
import signal

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
