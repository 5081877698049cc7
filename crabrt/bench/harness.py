"""Measuring on a noisy machine: interleaved rounds, dirty pages written back, the machine's facts.

Both sides of a comparison run in the same round, and the order rotates from round to round, so that
whatever else the machine does hits them alike. Before each measured piece of work everything dirty
is written back, so that nobody pays for what another left behind.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from crabrt.bench.apart import interrupt_all
from crabrt.bench.report import Samples, Times
from crabrt.errors import CrabError, UsageError
from crabrt.runtime import open_run
from crabrt.workspace.restoring.sync import sync_file_system

T = TypeVar("T")
R = TypeVar("R")

Case = Callable[[], Times]
Progress = Callable[[str], None]
"""Called with what is being done now."""


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """How many ms `work` took, and what it returned."""
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1e3, result


def settle(directory: Path) -> None:
    """Write back everything dirty on the file system of `directory`: nobody pays for another."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


def interleave(
    cases: Mapping[str, Case], samples: Samples, round_number: int, directory: Path
) -> None:
    """One round: every case once, beginning with another one each time, `directory` settled."""
    for name in rotated(list(cases), round_number):
        settle(directory)
        samples.add(name, cases[name]())


def machine(directory: Path) -> dict[str, str]:
    """Facts of this machine, and of the file system that `directory` is on."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_kib = int(file.readline().split()[1])
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / (1 << 20):.0f} GiB",
        "kernel": platform.release(),
        "file system": _file_system(directory),
        "python": platform.python_version(),
    }


def _file_system(directory: Path) -> str:
    """The type of the mount that holds `directory`."""
    real = os.path.realpath(directory)
    best, kind = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, point, its_kind, *_ = line.split(" ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, its_kind
    return kind


def rotated(cases: Sequence[T], round_number: int) -> list[T]:
    """The cases in the order of a round: each begins with another one."""
    shift = round_number % len(cases) if cases else 0
    return [*cases[shift:], *cases[:shift]]


def side_by_side(units: Sequence[T], work: Callable[[T], R], workers: int) -> Iterator[tuple[T, R]]:
    """Each unit with what `work` made of it, as they end; so many at once, in threads.

    Raises:
        Whatever `work` raises; units that were not begun are left out then.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = {pool.submit(work, unit): unit for unit in units}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            interrupt_all()
            raise


def observers_here(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those of `names` that runs can have here, and why they cannot have the others.

    Raises:
        UsageError: they can have none of them, and there is nothing to measure.
    """
    reasons = {name: observer_absence(name) for name in names}
    absent = {name: why for name, why in reasons.items() if why is not None}
    found = [name for name in names if name not in absent]
    if not found:
        why = "; ".join(absent.values())
        raise UsageError(f"nothing can be measured here: {why}", hint="--observer scan works here")
    return found, absent


def observer_absence(observer: str) -> str | None:
    """Why runs cannot be watched by `observer` here, or None."""
    with tempfile.TemporaryDirectory(prefix="crab-bench-") as name:
        (Path(name) / "workspace").mkdir()
        try:
            with open_run(
                workspace=Path(name, "workspace"), home=Path(name, "store"), observer=observer
            ):
                return None
        except CrabError as error:
            return error.message
