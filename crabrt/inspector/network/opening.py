"""What watching takes: the kernel's tracepoints, descriptors, and the right to use them."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import sys
from dataclasses import dataclass
from typing import Final

from crabrt.inspector.network import kernel, tracepoints
from crabrt.inspector.network.tracepoints import Tracepoint, load
from crabrt.inspector.watch.errors import Reason, Unwatchable

_MOUNTED: Final = "/sys/kernel/tracing"
EVENTS_MOST: Final = 96
"""How many events a process may have to inherit: that many cost it 0.2 to 0.4 ms and 120 to 170 KiB
of the kernel's memory (docs/internals/network.md)."""

_SHARE: Final = 4
"""At most one part in so many of the descriptors that the process may have."""

Point = tuple[Tracepoint, str, bool]
"""A tracepoint, the condition on its fields, and whether its samples carry the stack."""


@dataclass(frozen=True)
class Sources:
    """The tracepoints of this kernel that tell of connections.

    Attributes:
        routes: of internet connections.
        local: of AF_UNIX connections; empty where those cannot be had.
        ways: the tracepoints of `routes`.
        connect, connected: the beginning and the end of connect(2).
        by_number: all of them, by id.
    """

    routes: tuple[Point, ...]
    local: tuple[Point, ...]
    ways: tuple[Tracepoint, ...]
    connect: Tracepoint | None
    connected: Tracepoint | None
    by_number: dict[int, Tracepoint]


def load_sources() -> Sources:
    """Look the tracepoints up.

    Raises:
        OSError: tracefs cannot be had.
        Unwatchable: the kernel has not what it takes.
    """
    if sys.byteorder != "little" or platform.machine() not in kernel.NUMBERS:
        raise Unwatchable(f"not known on {platform.machine()}", Reason.KERNEL)
    tracefs = _tracefs()
    try:
        four = load(tracefs, tracepoints.ROUTES[0], "err", "proto", "dst", "dport")
        ways = [four]
        if os.path.exists("/proc/net/if_inet6"):
            ways.append(load(tracefs, tracepoints.ROUTES[1], "err", "proto", "dst", "dport"))
        local: list[Point] = []
        connect = connected = None
        with contextlib.suppress(OSError):
            connect = load(tracefs, tracepoints.CONNECT, "uservaddr", "addrlen")
            connected = load(tracefs, tracepoints.CONNECTED, "ret")
            local = [(connect, "", True), (connected, "", False), *_ring(tracefs)]
    finally:
        os.close(tracefs)
    points = [*ways, *(point for point, _, _ in local)]
    return Sources(
        tuple((point, tracepoints.FOUND, False) for point in ways),
        tuple(local),
        tuple(ways),
        connect,
        connected,
        {point.number: point for point in points},
    )


def _ring(tracefs: int) -> list[Point]:
    for name in tracepoints.RINGS:
        with contextlib.suppress(FileNotFoundError):
            return [(load(tracefs, name, "opcode"), tracepoints.CONNECTS, False)]
    return []


def _tracefs() -> int:
    """Where it is mounted, if it is; else a mount that nobody sees."""
    with contextlib.suppress(OSError):
        fd = os.open(_MOUNTED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.stat("events/fib", dir_fd=fd)
        except OSError:
            os.close(fd)
        else:
            return fd
    return kernel.open_tracefs()


def check_descriptors(threads: int, processors: int) -> bool:
    """Whether the names of processes can be had as well.

    Raises:
        Unwatchable: following that many threads on that many processors would cost too much.
    """
    (allowed, _) = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        allowed = 1 << 30
    inherited = [(events * processors, names) for events, names in ((3, True), (2, False))]
    affordable = [one for one in inherited if one[0] <= EVENTS_MOST]
    if not affordable:
        raise Unwatchable(
            f"each process would inherit {inherited[-1][0]} events on {processors} processors, and"
            f" more than {EVENTS_MOST} slow it down",
            Reason.LIMIT,
        )
    for each, names in affordable:
        if each * threads <= allowed // _SHARE:
            return names
    least = affordable[-1][0] * threads
    raise Unwatchable(
        f"{threads} threads on {processors} processors take {least} descriptors, more than a"
        f" quarter of those allowed ({allowed})",
        Reason.LIMIT,
        hint=f"raise the limit of open files: ulimit -n {least * _SHARE}",
    )


def refusal(error: OSError) -> Unwatchable:
    """What an error of the kernel means for somebody who wants to watch."""
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Unwatchable(
            "it takes root (CAP_SYS_ADMIN and CAP_PERFMON)",
            Reason.PRIVILEGE,
            hint="run as root, in the initial user namespace",
        )
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        return Unwatchable(f"out of descriptors or memory: {error.strerror}", Reason.LIMIT)
    return Unwatchable(f"the kernel cannot: {error.strerror or error}", Reason.KERNEL)
