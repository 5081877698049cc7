"""A program that hangs does not outlive us for good: a small shell beside it ends it.

While we live we do that ourselves, at a moment that harms nobody. If we are killed, nobody is left
who would: CRIU's own time limit ends with the moment when the tree stands still, and a restore has
none. CRIU is not ended at once then, since it finishes as a rule, and lets the tree go on.

A restore may leave a tree half done all the same: CRIU was ended, or had left it stopped for us.
Such processes wait for ever, and look like those that they were to be. They are known by CRIU's log
and output, which each of them has open until the moment when it goes on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crabrt.process import claims, table

SCRATCH: Final = "crab-criu-"
"""How the directories begin that CRIU has its log and output in."""
LOG, OUTPUT, PID = "log", "output", "pid"

_SCRIPT: Final = """
pid=$1 began=$2
read -r line
sleep "$3"
read -r stat < "/proc/$pid/stat" || exit
set -- ${stat##*) }
[ "${20}" = "$began" ] && kill -KILL "-$pid"
"""
"""It waits for the end of a pipe that we hold open. The number may be somebody else's by then, so
it is compared when that one began (proc_pid_stat(5), field 22)."""

_RESTORE_SCRIPT: Final = """
pid=$1 began=$2 tenths=$3 work=$4 images=$5 stopped=$6 root=
read -r line
is_at_work() {
    read -r stat < "/proc/$pid/stat" || return 1
    set -- ${stat##*) }
    [ "${20}" = "$began" ] && [ "$1" != Z ]
}
ends() {
    for below in $(cat "/proc/$1/task/"*/children); do ends "$below"; done
    kill -KILL "$1"
}
exec 2> /dev/null
while is_at_work && [ "$tenths" -gt -100 ]; do  # the kernel may not let go of it
    [ "$tenths" -gt 0 ] || kill -KILL "-$pid"
    tenths=$((tenths - 1))
    sleep 0.1
done
[ "$stopped" ] && read -r root < "$work/pid"  # which ends without a newline: that is no success
if [ "$root" ] && read -r stat < "/proc/$root/stat"; then
    set -- ${stat##*) }
    [ "$1" = T ] && ends "$root"
fi
left=20
while [ "$left" -gt 0 ]; do
    left=$((left - 1)) found=
    for fd in /proc/[0-9]*/fd/*; do
        if [ "$fd" -ef "$work/log" ] || [ "$fd" -ef "$work/output" ]; then
            half=${fd#/proc/}
            kill -KILL "${half%%/*}" && found=yes
        fi
    done
    [ "$found" ] || break
    sleep 0.05
done
case $work in */crab-criu-*) rm -rf "$work" ;; esac
"""
"""When we are gone: CRIU has the rest of its time. Who stands still for us ends, with what is below
it, and then whoever has CRIU's log open yet."""

_RESTORES: Final = "crab-restore-guard"
"""What the guard of a restore is called."""

_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Half:
    """What a restore leaves if we die.

    Attributes:
        work: the directory that CRIU has its log in; it goes as well.
        images: those that it reads.
        stopped: whether CRIU leaves the tree stopped for us.
    """

    work: Path
    images: Path
    stopped: bool


class Guard:
    """Ends a process group that has outlived us, after some time.

    Args:
        leader: the number of its first process.
        limit_s: how long the group may go on when we are gone.
        half: of a restore: what is to end with it; None: of a dump.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, leader: int, limit_s: float, half: Half | None = None) -> None:
        found = table.look(leader)
        began = found.started if found is not None else 0
        words = [str(leader), str(began)]
        if half is None:
            words = [_SCRIPT, "sh", *words, f"{limit_s:g}"]
        else:
            rest = [str(half.work), str(half.images), "stopped" if half.stopped else ""]
            words = [_RESTORE_SCRIPT, _RESTORES, *words, str(int(limit_s * 10)), *rest]
        self._child = claims.helper(
            lambda: subprocess.Popen(
                ["/bin/sh", "-c", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(claims.ENVIRONMENT),
                start_new_session=True,
            )
        )

    def dismiss(self) -> None:
        """The group has ended, or is looked after by us."""
        self._child.kill()
        self._child.communicate()


def await_others(images: Path, limit_s: float) -> bool:
    """Wait until no restore that was killed, with images below `images`, is at work any more.

    Returns:
        Whether that is so within the time.
    """
    until = time.monotonic() + limit_s
    while any(_is_at_it(int(name), images) for name in os.listdir("/proc") if name.isdecimal()):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def _is_at_it(pid: int, images: Path) -> bool:
    """Whether it is such a guard, or CRIU itself, which is started a moment before its guard."""
    words = table.command(pid)
    below = os.fsencode(images) + b"/"
    restores = _RESTORES.encode() in words or b"restore" in words
    return restores and any(word.startswith(below) for word in words)


def is_half(pid: int) -> bool:
    """Whether a process is one that CRIU had not finished when it was ended."""
    with contextlib.suppress(OSError):  # it ended, or may not be looked at
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = Path(os.readlink(f"/proc/{pid}/fd/{name}").removesuffix(" (deleted)"))
                if path.name in {LOG, OUTPUT} and path.parent.name.startswith(SCRATCH):
                    return True
    return False
