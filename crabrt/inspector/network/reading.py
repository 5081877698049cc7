"""From samples to connections: who, and to whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from crabrt.inspector.network import processes
from crabrt.inspector.network.opening import Sources
from crabrt.inspector.network.ring import Named, Sample
from crabrt.inspector.network.tracepoints import connected, local_path, route
from crabrt.inspector.network.values import HARMLESS, Connection

_NAMES_MOST: Final = 10_000


class Seen(NamedTuple):
    """A connection, and when it began."""

    time_ns: int
    what: Connection


class Reading:
    """Remembers how processes are called, and whose connect(2) has not returned.

    Args:
        sources: the tracepoints.
        own: the loop's own process.
    """

    def __init__(self, sources: Sources, own: int) -> None:
        self._sources = sources
        self._own = own
        self._names: dict[int, str] = {}
        self._asked: dict[int, str] = {}

    def read(self, samples: Iterable[Sample | Named]) -> list[Seen]:
        """The connections that `samples`, in the order of time, tell of."""
        found: list[Seen] = []
        for one in samples:
            if isinstance(one, Named):
                self._name(one)
                continue
            point = self._sources.by_number.get(int.from_bytes(one.raw[:2], "little"))
            if point in self._sources.ways:
                to = route(point, one)
                if not self._asked.get(one.thread, "known"):
                    del self._asked[one.thread]  # its address could not be read: an internet one
                found.append(self._seen(one, to.protocol, to.address, to.port))
            elif point is not None and point is self._sources.connect:
                path = local_path(point, one)
                self._asked.pop(one.thread, None)
                if path is not None and not path.startswith(HARMLESS):
                    self._asked[one.thread] = path
            elif point is not None and point is self._sources.connected:
                known = self._asked.pop(one.thread, None)
                if known is not None and connected(point, one):
                    found.append(self._seen(one, "unix", path=known))
            elif point is not None:  # io_uring: where to, the route tells, if there is one
                found.append(self._seen(one, "unix"))
        return found

    def _name(self, one: Named) -> None:
        if one.pid != one.thread:
            return
        self._names.pop(one.pid, None)
        self._names[one.pid] = one.name
        if len(self._names) > _NAMES_MOST:
            del self._names[next(iter(self._names))]

    def _seen(
        self, by: Sample, protocol: str, address: str = "", port: int = 0, *, path: str = ""
    ) -> Seen:
        name = self._names.get(by.pid) or processes.command(by.pid)
        own = by.pid == self._own
        return Seen(by.time_ns, Connection(protocol, address, port, path, by.pid, name, own))
