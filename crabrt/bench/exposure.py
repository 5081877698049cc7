"""Recorded runs with their waits, under three regimes: what `overhead` has workers do.

``plain``: the loop alone. ``crabrt``: under protection. ``full copy``: the loop alone, and an
archive of the whole workspace at the end of every turn.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crabrt.bench.apart import Link, cpu_s, memory_bytes
from crabrt.bench.harness import settle
from crabrt.traces import (
    Header,
    ModelCall,
    ReplayOptions,
    ReplayReport,
    ToolCall,
    Trace,
    Turn,
    read_trace,
    replay,
)
from crabrt.traces.schema import SCHEMA, VERSION

PLAIN, PROTECTED, FULL_COPY = "plain", "crabrt", "full copy"
REGIMES = (PLAIN, PROTECTED, FULL_COPY)


@dataclass(frozen=True)
class _Where:
    workspace: Path
    home: Path
    archive: Path


def replayed(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """A recorded run, again, under a regime. A `Work`.

    Args:
        arguments: ``regime``, ``file``, ``trajectory``, ``turns`` (None: all), ``workspace``,
            ``environ`` of its commands, ``home``, ``archive`` (a file), ``speed``, ``observer``.
        link: not needed.
    """
    del link
    where = _Where(*(Path(arguments[name]) for name in ("workspace", "home", "archive")))
    regime = arguments["regime"]
    trace = read_trace(Path(arguments["file"]), trajectory=arguments["trajectory"])
    options = ReplayOptions(
        environ=arguments["environ"],
        speed=arguments["speed"],
        protected=regime == PROTECTED,
        home=where.home,
        config={"observer": arguments["observer"], "force": True},
        turns=arguments["turns"],
        between=_archiver(where) if regime == FULL_COPY else None,
    )
    forget_pages(where.workspace)
    began_s = cpu_s()
    report = replay(trace, where.workspace, options)
    found: dict[str, Any] = {
        "wall_ms": report.wall_ms,
        "wait_ms": sum(turn.model_wait_ms for turn in report.turns),
        "turns": len(report.turns),
        "exposed_ms": [turn.exposed_ms for turn in report.turns],
        "exit_ms": report.exit_ms,
        "cpu_s": cpu_s() - began_s,
        "peak_bytes": memory_bytes("VmHWM"),
        "unprotected": sum(bool(turn.unprotected) for turn in report.turns),
    }
    if regime == PROTECTED:
        found["cold"] = _baseline(report)
        settle(where.workspace)
        found["warm"] = _baseline(replay(_ONE_TURN, where.workspace, options))
    return found


def _baseline(report: ReplayReport) -> dict[str, float]:
    """Turn 0: how long its capture took, and how long it held the loop back."""
    exposed = report.enter_ms + report.baseline_exposed_ms
    return {"capture": report.baseline_capture_ms, "exposed": exposed}


_ONE_TURN = Trace(
    Header(SCHEMA, VERSION, "again", 1),
    (Turn(1, models=(ModelCall(wait_ms=0.0),), tools=(ToolCall("shell", {"command": "true"}),)),),
)


def _archiver(where: _Where) -> Callable[[], object]:
    command = ["tar", "-cf", str(where.archive), "-C", str(where.workspace), "."]

    def work() -> object:
        # What lives may change what is read: tar says so with 1, and the archive is still one.
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    return work


_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def forget_pages(top: Path) -> None:
    """Have the kernel forget the pages of all files below `top`: the first look reads the disk."""
    settle(top)
    for above, _, names in os.walk(top):
        for name in names:
            with contextlib.suppress(OSError):  # a link to nowhere, a fifo: nothing to forget
                file = os.open(os.path.join(above, name), _OPEN)
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)
