"""What killed runs and killed restores left in spools: who needs it still, and what can go.

A run that was killed between a capture and its checkpoint can finish that checkpoint when it is
resumed: so that spool stays until it is, or until the run is deleted. All else is nobody's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crabrt.core.clock import boot_id
from crabrt.core.entries import Captured, Checkpoint, Forked
from crabrt.core.ids import RunId, valid_name
from crabrt.errors import DamagedJournal, FormatTooNew, NotFound
from crabrt.journal import lease_holder, read_journal, run_dir
from crabrt.process import spool, table
from crabrt.process.spool import Spool, spooled

RESTORE: Final = "restore-"
"""How the spool of a restore is called, before the number of its process."""


@dataclass(frozen=True)
class Left:
    """One directory of images that nobody is at work on.

    Attributes:
        run: whose; a restore's is called ``restore-PID``.
        directory: where.
        size_bytes: how much that is.
        is_needed: a resume of the run goes on from it.
    """

    run: str
    directory: Path
    size_bytes: int
    is_needed: bool


def left_behind(home: Path) -> list[Left]:
    """What lies in spools of the store `home` that nobody is at work on, by run.

    Raises:
        StoreUnavailable: a journal or a lease cannot be read.
    """
    return [one for name in sorted(spooled(home)) for one in _left_of(home, name)]


def drop_unneeded(home: Path, *, dry_run: bool = False) -> list[Left]:
    """Drop what no resume goes on from; what that was.

    Raises:
        StoreUnavailable: as `left_behind`.
    """
    going = [one for one in left_behind(home) if not one.is_needed]
    for one in going:
        # A run that was taken up meanwhile makes directories of the same names.
        if not dry_run and not _is_at_work(home, one.run):
            spool.drop(one.directory)
    return going


def _left_of(home: Path, name: str) -> Iterator[Left]:
    directories = Spool(home, name).directories() if valid_name(name) else []
    if not directories or _is_at_work(home, name):
        return
    needed = set() if name.startswith(RESTORE) else _needed(home, RunId(name))
    for directory in directories:
        is_needed = needed is None or os.fsencode(directory) in needed
        yield Left(name, directory, spool.size_of(directory), is_needed)


def _is_at_work(home: Path, name: str) -> bool:
    if not name.startswith(RESTORE):
        return lease_holder(run_dir(home, RunId(name))) is not None
    number = name.removeprefix(RESTORE)
    if not number.isdecimal():
        return True  # nothing that is known here
    found = None
    with contextlib.suppress(OSError):
        found = table.look(int(number))
    if found is None:
        return False
    ago_s = (time.monotonic_ns() - found.began_ns) / 1e9
    made_s = [one.stat().st_ctime for one in Spool(home, name).directories()]
    return ago_s >= time.time() - min(made_s, default=0.0) - 1.0  # else the number is another's


def _needed(home: Path, run: RunId) -> set[bytes] | None:
    """The spools that a resume of `run` goes on from; None where that cannot be told."""
    waiting: list[Captured] = []
    try:
        for record in read_journal(run_dir(home, run)):
            body = record.body
            if isinstance(body, Captured) and record.entry.boot == boot_id():
                waiting.append(body)
            elif isinstance(body, Checkpoint):
                waiting = [one for one in waiting if one.position > body.position]
            elif isinstance(body, Forked):
                waiting.clear()
    except NotFound:
        return set()
    except (DamagedJournal, FormatTooNew):
        return None
    return {one.spool for one in waiting if one.spool}
