"""What was seen of the network: connections, and how well anybody looked."""

from __future__ import annotations

import ipaddress
from enum import StrEnum

import msgspec


class Where(StrEnum):
    """How far a connection goes."""

    WORLD = "world"
    MACHINE = "machine"


class Connection(msgspec.Struct, frozen=True, order=True):
    """A process of the run reached out to somebody.

    Attributes:
        protocol: ``tcp``, ``udp``, ``icmp``, ``unix``, or ``ip/N`` for IP protocol N.
        address: of the other side, IPv4 where it is mapped into IPv6; empty for ``unix``.
        port: of the other side; 0 where there is none.
        path: of an AF_UNIX socket; abstract ones begin with ``@``; empty where it is not known.
        pid: the process; 0 where it is not known (of a connection that is kept).
        command: its name; empty where it is not known.
        own: it was the loop's own process.
    """

    protocol: str
    address: str = ""
    port: int = 0
    path: str = ""
    pid: int = 0
    command: str = ""
    own: bool = False

    @property
    def where(self) -> Where:
        """Whether it leaves this machine: everything but loopback and AF_UNIX does."""
        if self.protocol == "unix" or not self.address:
            return Where.MACHINE
        address = ipaddress.ip_address(self.address)
        here = address.is_loopback or address.is_unspecified
        return Where.MACHINE if here else Where.WORLD

    @property
    def target(self) -> str:
        """For people: ``203.0.113.9:443``, ``[2001:db8::1]:53/udp``, ``/run/docker.sock``."""
        if self.protocol == "unix":
            return self.path or "a local socket"
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = f":{self.port}" if self.port else ""
        return f"{host}{port}" + ("" if self.protocol == "tcp" else f"/{self.protocol}")


class Network(msgspec.Struct, frozen=True):
    """What the processes of a run did on the network in an interval.

    Attributes:
        watched: somebody looked; if not, nothing below says anything.
        why_not: why nobody did.
        connections: distinct, in the order of time, at most `CONNECTIONS_MOST`.
        more: how many further ones there were.
        kept: connections to the world that an earlier turn left open.
        lost: why some may be missing; None if none can be.
        local: AF_UNIX connections, too, were watched all the time that matters.
        unsure: something else may have been sent, or be on its way: through a connection that was
            open before; by processes that the turn began and that still live; or the loop's own
            process connected while a tool ran and a model was asked, and nobody can tell for which
            of them. Such a connection is not among `connections`.
    """

    watched: bool = False
    why_not: str = ""
    connections: tuple[Connection, ...] = ()
    more: int = 0
    kept: tuple[Connection, ...] = ()
    lost: str | None = None
    local: bool = False
    unsure: bool = False

    @property
    def world(self) -> tuple[Connection, ...]:
        """The connections that leave the machine."""
        return tuple(one for one in self.connections if one.where is Where.WORLD)

    @property
    def silent(self) -> bool:
        """Whether it is certain that nothing left the machine, by whichever way."""
        return (
            self.watched
            and self.local
            and self.lost is None
            and not (self.connections or self.more or self.kept or self.unsure)
        )


CONNECTIONS_MOST = 1_000
"""Of distinct connections, how many are told for one interval."""

HARMLESS = (
    "/run/nscd/",
    "/var/run/nscd/",
    "/run/systemd/userdb/",
    "/run/systemd/journal/",
    "/run/systemd/notify",
    "/dev/log",
)
"""AF_UNIX sockets that look up names on this machine or log to it: no connection is told."""
