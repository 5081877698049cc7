"""The kernel's tracepoints that tell of connections, and what their records say.

`fib_table_lookup` and `fib6_table_lookup` are passed when the kernel looks for the way to an
address: once for a TCP connection, for each connected UDP socket, and for each packet of one that
is not, whichever system call asked (io_uring does, too). The record holds the kernel's copy of the
address, so nothing is read from the memory of the process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from crabrt.inspector.network.ring import Sample
from crabrt.process.sockets import shown

ROUTES: Final = ("fib/fib_table_lookup", "fib6/fib6_table_lookup")
CONNECT: Final = "syscalls/sys_enter_connect"
CONNECTED: Final = "syscalls/sys_exit_connect"
RINGS: Final = ("io_uring/io_uring_submit_req", "io_uring/io_uring_submit_sqe")
"""A request is handed to the kernel through io_uring; the second is its name before Linux 6.4."""

FOUND: Final = "err == 0 && proto != 0 && !(common_flags & 24)"
"""A way was found, for something to be sent (who changes routes looks without a protocol), and not
for a packet that came in (0x08 and 0x10: in an interrupt)."""

CONNECTS: Final = "opcode == 16"
"""``IORING_OP_CONNECT``."""

_FIELD = re.compile(r"\bfield:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);")
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp", 262: "tcp"}
_TEXT_MOST: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A tracepoint of this kernel.

    Attributes:
        name: ``group/event``.
        number: its id.
        fields: offset and size in its record, by name.
    """

    name: str
    number: int
    fields: dict[str, tuple[int, int]]

    def bytes_of(self, raw: bytes, field: str) -> bytes:
        """A field as it is."""
        offset, size = self.fields[field]
        return raw[offset : offset + size]

    def number_of(self, raw: bytes, field: str, *, signed: bool = False) -> int:
        """A field of the machine's byte order (all that are supported here are little-endian)."""
        return int.from_bytes(self.bytes_of(raw, field), "little", signed=signed)


def load(tracefs: int, name: str, *needed: str) -> Tracepoint:
    """The tracepoint `name` of this kernel.

    Raises:
        OSError: there is none (ENOENT), or its record does not have the fields `needed`.
    """
    text = _text(tracefs, f"events/{name}/format")
    fields = {match[1]: (int(match[2]), int(match[3])) for match in _FIELD.finditer(text)}
    number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
    if number is None or not set(needed) <= fields.keys():
        raise OSError(f"the record of {name} is not understood")
    return Tracepoint(name, int(number[1]), fields)


def _text(tracefs: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tracefs)
    try:
        return os.read(fd, _TEXT_MOST).decode("utf-8", "replace")
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Route:
    """The kernel looked for the way to an address, and found one."""

    protocol: str
    address: str
    port: int


def route(point: Tracepoint, sample: Sample) -> Route:
    """What a record of one of `ROUTES` says."""
    number = point.number_of(sample.raw, "proto")
    return Route(
        _PROTOCOLS.get(number, f"ip/{number}"),
        shown(point.bytes_of(sample.raw, "dst")),
        point.number_of(sample.raw, "dport"),
    )


_UNIX: Final = 1
_FAMILY_BYTES: Final = 2
_IN_PROGRESS: Final = -115


def local_path(point: Tracepoint, sample: Sample) -> str | None:
    """The path of the AF_UNIX socket that connect(2) was called for.

    The address is looked for in the copy of the caller's stack, where nearly everybody has it.

    Returns:
        Empty if it lies elsewhere, or is a name of nothing; None if it is no AF_UNIX address.
    """
    start = point.number_of(sample.raw, "uservaddr") - sample.pointer
    address = (
        sample.stack[start : start + point.number_of(sample.raw, "addrlen")] if start >= 0 else b""
    )
    if len(address) < _FAMILY_BYTES:
        return ""
    if int.from_bytes(address[:_FAMILY_BYTES], "little") != _UNIX:
        return None
    name = address[_FAMILY_BYTES:]
    if name.startswith(b"\0"):
        name = b"@" + name[1:].rstrip(b"\0")
    return name.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def connected(point: Tracepoint, sample: Sample) -> bool:
    """Whether connect(2) came to something: a record of `CONNECTED`."""
    return point.number_of(sample.raw, "ret", signed=True) in {0, _IN_PROGRESS}
