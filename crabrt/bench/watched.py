"""A whole command, watched from outside: its time, its CPU time, its memory at most."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crabrt.bench.apart import TAIL, WorkFailed

# A small interpreter in between: what a process inherits as its largest memory is its parent's.
_WATCH = """
import json, os, sys, time
began = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
wall_s = time.perf_counter() - began
print(json.dumps([os.waitstatus_to_exitcode(status), wall_s,
                  usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
"""


@dataclass(frozen=True)
class Watched:
    """What a command took: seconds, CPU seconds, resident bytes at most."""

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_bytes: int


def watched(command: Sequence[str], environ: Mapping[str, str]) -> Watched:
    """Run a command to its end, without its output.

    Args:
        command: the program's path, and its arguments.
        environ: what it sees.

    Raises:
        WorkFailed: it could not be started.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _WATCH, *command],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WorkFailed(f"{command[0]} could not be run", where=done.stderr[-TAIL:])
    return Watched(*json.loads(done.stdout))
