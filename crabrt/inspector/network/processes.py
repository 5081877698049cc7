"""What ``/proc`` says of the run's processes: who they are, and which connections are open."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

from crabrt.inspector.network.values import shown
from crabrt.workspace.procfs import read, threads

_OPEN = frozenset(
    {b"01", b"02", b"08"}
)  # established, being so, and closed by the other side alone
_STARTED = 19  # of /proc/PID/stat, counted after the name
_ENDED = frozenset({b"Z", b"X"})
_TABLES = ("tcp", "tcp6", "udp", "udp6")


def members(own: int, mark: bytes) -> list[int]:
    """The live processes that descend from `own`, it included, and those that say they do.

    Args:
        own: a process.
        mark: ``NAME=VALUE`` in the environment of the others; empty: only descendants are told.
    """
    parents = {int(name): _parent(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = {own}
    for pid in parents:
        line = []
        at: int | None = pid
        while at is not None and at > 1 and at not in found and at not in line:
            line.append(at)
            at = parents.get(at)
        if at in found:
            found.update(line)
    if mark:
        found.update(pid for pid in parents if pid not in found and _says(pid, mark))
    return sorted(found)


def _parent(pid: int) -> int | None:
    try:
        return int(read(b"/proc/%d/stat" % pid).rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _says(pid: int, mark: bytes) -> bool:
    """Whether its environment has `mark`; of several runs in one process, it names all."""
    name, _, value = mark.partition(b"=")
    try:
        lines = read(b"/proc/%d/environ" % pid).split(b"\0")
    except OSError:
        return False
    return any(
        value in line[len(name) + 1 :].split(b",") for line in lines if line.startswith(name + b"=")
    )


def begun_since(pids: list[int], time_ns: int) -> bool:
    """Whether any of these processes lives and is younger than `time_ns` (monotonic)."""
    asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = read(b"/proc/%d/stat" % pid).rpartition(b")")[2].split()
            begun_ns = (int(fields[_STARTED]) + 1) * tick_ns - asleep_ns
            if fields[0] not in _ENDED and begun_ns >= time_ns:
                return True
    return False


def threads_of(pids: list[int]) -> list[int]:
    """All threads of live processes."""
    found: list[int] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found += threads(pid)
    return found


def command(pid: int) -> str:
    """The name of a live process; empty if it has ended."""
    try:
        return read(b"/proc/%d/comm" % pid).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""


def network_of(pid: int) -> int | None:
    """The number of the network namespace that a process is in; None if it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket that is connected, as ``/proc/PID/net`` lists it.

    Attributes:
        protocol, address, port: of the other side.
        inode: that descriptors name it by; 0 if nobody holds it.
    """

    protocol: str
    address: str
    port: int
    inode: int


def connected_sockets(pid: int) -> list[Socket]:
    """The connected TCP and UDP sockets of the network namespace that `pid` is in."""
    found: list[Socket] = []
    for table in _TABLES:
        try:
            lines = read(b"/proc/%d/net/%s" % (pid, table.encode())).splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            with contextlib.suppress(IndexError, ValueError):
                if fields[3] in _OPEN:
                    address, port = _remote(fields[2].decode())
                    found.append(Socket(table.removesuffix("6"), address, port, int(fields[9])))
    return found


def _remote(text: str) -> tuple[str, int]:
    """Address and port from ``0100007F:1F90``: words in the machine's order, the port a number."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return shown(turned), int(port, 16)


def held_inodes(pid: int) -> frozenset[int]:
    """The sockets that a process has descriptors of."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError, ValueError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")
                if link.startswith("socket:["):
                    found.add(int(link[8:-1]))
    return frozenset(found)
