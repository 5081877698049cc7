"""Processes that a dead run left behind: found by the run's id in their environment, and stopped.

Before a resume touches files, whatever the killed loop started must stop writing to them. Children
inherit ``CRAB_RUN``: the runs that were live in the process that started them, separated by commas;
behind a slash each, those of the programs in between, outermost first (``fixer-1,tester-2/inner-3``
was started by a program that a tool of fixer-1 or tester-2 had started). Whose of several a process
is, nobody can tell: it is left alone while any run of its group lives. A process that cleans its
environment escapes (tracking processes for real is another floor's work).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from crabrt.core.config import RUN_VARIABLE
from crabrt.core.ids import valid_name
from crabrt.process import table
from crabrt.process.signalling import send

_PATIENCE_S = 2.0
_POLL_S = 0.02


class Orphan(NamedTuple):
    """A process of a run whose owner is gone.

    Attributes:
        pid, started: see `table.Process`.
        command: for people.
    """

    pid: int
    started: int
    command: str

    @property
    def identity(self) -> tuple[int, int]:
        """What tells it from every other process of this boot."""
        return self.pid, self.started


def carried(inherited: str, runs: Iterable[str]) -> str:
    """What ``CRAB_RUN`` says in a process that inherited `inherited` and has `runs` live."""
    return "/".join(group for group in (inherited, ",".join(runs)) if group)


def _nobody(_: str) -> bool:
    return False


def find_orphans(runs: Collection[str], is_live: Callable[[str], bool] = _nobody) -> list[Orphan]:
    """Processes that belong to one of `runs`, except this process and its ancestors.

    Args:
        runs: ids of runs whose owners are gone.
        is_live: whether another run has an owner.
    """
    spared = lineage()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in spared:
            continue
        try:
            if not belongs(_said(int(name)), runs, is_live):
                continue
            process = table.look(int(name))
            if process is None or process.ended:
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:  # gone meanwhile, or another user's: then it is not ours to stop
            continue
        found.append(Orphan(*process.identity, command))
    return found


def is_anothers(pid: int, runs: Collection[str], is_live: Callable[[str], bool]) -> bool:
    """Whether a process says that it is a live run's, or of none of `runs`."""
    try:
        said = _said(pid)
    except OSError:
        return False
    return bool(said) and not belongs(said, runs, is_live)


def said_by(pid: int) -> str:
    """What ``CRAB_RUN`` was when the process was started; empty if nobody can tell."""
    try:
        return _said(pid)
    except OSError:
        return ""


def carried_by_children() -> frozenset[str]:
    """The runs that live in this process, as what it starts now inherits them."""
    group = os.environ.get(RUN_VARIABLE, "").rpartition("/")[2]
    return frozenset(run for run in group.split(",") if valid_name(run))


def names_any(said: str, runs: Collection[str]) -> bool:
    """Whether a process with this ``CRAB_RUN`` may be one of `runs`'."""
    return any(run in runs for group in said.split("/") for run in group.split(","))


def is_only(said: str, runs: Collection[str]) -> bool:
    """Whether a process with this ``CRAB_RUN`` was started by one of `runs`, and by no other."""
    return belongs(said, runs, lambda _: True)


def _said(pid: int) -> str:
    """What ``CRAB_RUN`` was when the process was started; empty if it has none.

    Raises:
        OSError: it is gone, or another user's.
    """
    mark = f"{RUN_VARIABLE}=".encode()
    with open(f"/proc/{pid}/environ", "rb") as file:
        variables = file.read().split(b"\0")
    said = next((v[len(mark) :] for v in variables if v.startswith(mark)), b"")
    return said.decode("utf-8", "replace")


def belongs(said: str, runs: Collection[str], is_live: Callable[[str], bool]) -> bool:
    """Whether a process with this ``CRAB_RUN`` was started by one of `runs`, and by no live one."""
    for group in said.split("/"):
        ids = group.split(",")
        others = [run for run in ids if run not in runs and valid_name(run)]
        if any(run in runs for run in ids):
            return not any(is_live(run) for run in others)
    return False


def stop(processes: Iterable[tuple[int, int]]) -> None:
    """End processes, given by number and start time: SIGTERM, then SIGKILL for those that stay."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for who in left:
            send(who, number)
        deadline = time.monotonic() + _PATIENCE_S  # one that the kernel holds may take longer
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            left = [who for who in left if table.is_alive(who)]


def _stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` behind the command's name; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def lineage() -> set[int]:
    """This process and its ancestors: a resumed agent may run inside another run's tool."""
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        fields = _stat_fields(pid)
        pid = int(fields[1]) if len(fields) > 1 else 0
    return pids
