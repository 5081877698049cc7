"""Time as the journal records it: wall clock, monotonic clock, and which boot they belong to."""

from __future__ import annotations

import functools
import time
from typing import Protocol

import msgspec


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """One reading: `wall_ns` since the epoch, `mono_ns` comparable within one `boot` only."""

    wall_ns: int
    mono_ns: int


class Clock(Protocol):
    """Where readings come from; tests bring their own."""

    def now(self) -> Moment:
        """The current reading."""
        ...


class SystemClock:
    """The machine's clocks. ``CLOCK_MONOTONIC``: the same for every process of one boot."""

    def now(self) -> Moment:
        """The current reading."""
        return Moment(time.time_ns(), time.monotonic_ns())


@functools.cache
def boot_id() -> str:
    """The kernel's random id of this boot, as 36 characters; ``"unknown"`` where there is none.

    In a container it is the host's; that is what is wanted: processes and dirty pages live and die
    with the kernel.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
