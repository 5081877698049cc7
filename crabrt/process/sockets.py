"""The sockets of processes, as ``/proc/PID/net`` and ``/proc/PID/fd`` list them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from crabrt.workspace.procfs import read

_CONNECTED: Final = frozenset({b"01", b"02", b"08"})
"""Established, being so, and closed by the other side alone (include/net/tcp_states.h)."""
_ESTABLISHED: Final = b"01"
_EVERYWHERE: Final = frozenset({"0.0.0.0", "[::]"})  # noqa: S104  compared with, not bound to
_LISTENS: Final = b"0A"
_UNCONNECTED: Final = b"07"  # a UDP socket that is bound
_TABLES: Final = ("tcp", "tcp6", "udp", "udp6")
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON of a unix socket
_MAPPED: Final = b"0000000000000000FFFF0000"
"""How an address of IPv4 begins where it is in the tables of IPv6."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A connected socket.

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
    for protocol, fields in _internet(pid):
        if fields[3] in _CONNECTED:
            address, port = _address(fields[2])
            found.append(Socket(protocol, address, port, int(fields[9])))
    return found


def listening_sockets(pid: int) -> dict[int, str]:
    """Where anybody in the network namespace of `pid` waits for others, by inode.

    ``tcp 127.0.0.1:8000``, ``udp 0.0.0.0:53``, ``unix /run/x.sock``.
    """
    found: dict[int, str] = {}
    for protocol, fields in _internet(pid):
        if fields[3] == (_LISTENS if protocol == "tcp" else _UNCONNECTED):
            found[int(fields[9])] = _shown(protocol, fields[1])
    return found | dict(_unix_doors(pid))


def listens(pid: int) -> tuple[str, ...]:
    """Where `pid` itself waits for others, as `listening_sockets` tells it."""
    held = held_inodes(pid)
    found = listening_sockets(pid) if held else {}
    return tuple(sorted(text for inode, text in found.items() if inode in held))


def ends(pid: int, inodes: Collection[int]) -> tuple[dict[int, str], list[tuple[str, int]]]:
    """What those of `inodes` are that lie in the network namespace of `pid`.

    Returns:
        Where they wait for others, as `listening_sockets` tells it; and the other ends of those
        that are connected (``tcp 10.0.0.7:5432``), with the inode of the socket that this is; 0 if
        it is on another machine, or nobody holds it.
    """
    listening: dict[int, str] = {}
    connected: list[tuple[str, tuple[bytes, bytes, bytes]]] = []
    inode_at: dict[tuple[bytes, bytes, bytes], int] = {}
    for table in _TABLES:
        protocol = table.removesuffix("6")
        for fields in _lines(pid, table, 10):
            inode, state = fields[9], fields[3]
            here, there = (one.removeprefix(_MAPPED) for one in fields[1:3])
            with contextlib.suppress(ValueError):
                if state == _ESTABLISHED:
                    inode_at[protocol.encode(), here, there] = int(inode)
                if int(inode) not in inodes:
                    continue
                if state == _ESTABLISHED:
                    text = _shown(protocol, fields[2])
                    connected.append((text, (protocol.encode(), there, here)))
                elif state == (_LISTENS if protocol == "tcp" else _UNCONNECTED):
                    listening[int(inode)] = _shown(protocol, fields[1])
    listening |= {inode: text for inode, text in _unix_doors(pid) if inode in inodes}
    return listening, [(text, inode_at.get(other, 0)) for text, other in connected]


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


def holders(inodes: Collection[int]) -> dict[int, list[int]]:
    """Who has descriptors of these sockets, by socket; of one that nobody seen has, nothing."""
    found: dict[int, list[int]] = {}
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    for pid in numbers if inodes else ():
        for inode in held_inodes(pid).intersection(inodes):
            found.setdefault(inode, []).append(pid)
    return found


def collide(one: str, other: str) -> bool:
    """Whether two addresses, as `listening_sockets` tells them, exclude each other."""
    kind, _, where = one.partition(" ")
    its_kind, _, its_where = other.partition(" ")
    if kind != its_kind or kind == "unix":
        return one == other
    host, _, port = where.rpartition(":")
    its_host, _, its_port = its_where.rpartition(":")
    return port == its_port and (host == its_host or bool({host, its_host} & _EVERYWHERE))


def shown(address: bytes) -> str:
    """An address of 4 or 16 bytes as text; IPv4 where it is mapped into IPv6."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed)


def _internet(pid: int) -> Iterator[tuple[str, list[bytes]]]:
    for table in _TABLES:
        for fields in _lines(pid, table, 10):
            with contextlib.suppress(ValueError):
                _address(fields[1]), int(fields[9])  # whole
                yield table.removesuffix("6"), fields


def _unix_doors(pid: int) -> Iterator[tuple[int, str]]:
    for fields in _lines(pid, "unix", 7):
        with contextlib.suppress(ValueError):
            if int(fields[3], 16) & _ACCEPTS:
                path = b" ".join(fields[7:]).decode("utf-8", "backslashreplace")
                yield int(fields[6]), f"unix {path}".rstrip()


def _shown(protocol: str, field: bytes) -> str:
    """``tcp 127.0.0.1:8000`` from ``0100007F:1F40``."""
    address, port = _address(field)
    return f"{protocol} [{address}]:{port}" if ":" in address else f"{protocol} {address}:{port}"


def _lines(pid: int, table: str, fields_least: int) -> Iterator[list[bytes]]:
    try:
        lines = read(b"/proc/%d/net/%s" % (pid, table.encode())).splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) >= fields_least:
            yield fields


def _address(field: bytes) -> tuple[str, int]:
    """Address and port from ``0100007F:1F90``: words in the machine's order, the port a number."""
    words, _, port = field.decode().partition(":")
    raw = bytes.fromhex(words)
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return shown(turned), int(port, 16)
