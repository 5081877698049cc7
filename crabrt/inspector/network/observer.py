"""The network observer: what the processes of a run reached out to, in any interval since it began.

`WatchedNetwork` keeps what the kernel told, with its time; `look` gathers what lies in an interval,
so that a turn and the child run inside of it may both ask. Its samples wait in the kernel until
somebody looks: there is no thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from crabrt.inspector.network import processes
from crabrt.inspector.network.events import Follower, processors
from crabrt.inspector.network.held import Held, held_by
from crabrt.inspector.network.opening import (
    check_descriptors,
    load_sources,
    refusal,
)
from crabrt.inspector.network.reading import Reading, Seen
from crabrt.inspector.network.spans import Intervals, covers
from crabrt.inspector.network.values import (
    CONNECTIONS_MOST,
    Connection,
    Network,
    Where,
)
from crabrt.inspector.watch.errors import Unwatchable
from crabrt.process import sockets

_REMEMBERED_MOST: Final = 20_000
_REACHED_MOST: Final = 1_000
_LOSSES_MOST: Final = 100


class Interval(msgspec.Struct, frozen=True):
    """What is asked for. Times are of the monotonic clock, in nanoseconds.

    Attributes:
        begin_ns, end_ns: between which connections count.
        tools: when tool calls ran: only then do those of the loop's own process count.
        models: when models were asked: then they are the model's, or nobody can tell.
        local: whether `sharpen` could be had wherever it was asked for.
        reused: whether something may have gone through what was `held` when that was asked for.
    """

    begin_ns: int
    end_ns: int
    tools: Intervals = ()
    models: Intervals = ()
    local: bool = False
    reused: bool = False


class NetworkObserver(Protocol):
    """Thread-safe. Nothing here raises: what cannot be watched is said to be unknown."""

    @property
    def watched(self) -> bool:
        """Whether it sees anything at present."""
        ...

    def open(self) -> None:
        """Begin to look, if that can be had."""
        ...

    def look(self, asked: Interval) -> Network:
        """What was reached in an interval that ended before now."""
        ...

    def sharpen(self) -> bool:
        """Watch AF_UNIX connections, too, until `blunt`; whether that can be had."""
        ...

    def held(self) -> Held:
        """What the run is connected to just now, for `Interval.reused`."""
        ...

    def blunt(self) -> None:
        """As often as `sharpen` was asked."""
        ...

    def close(self) -> None:
        """Stop observing. Idempotent."""
        ...


class UnwatchedNetwork:
    """Nobody looks.

    Args:
        why: the reason.
    """

    watched = False

    def __init__(self, why: str) -> None:
        self._why = why

    def open(self) -> None:
        """There is nothing to begin."""

    def look(self, asked: Interval) -> Network:  # noqa: ARG002 - the port's
        """See `NetworkObserver`."""
        return Network(why_not=self._why)

    def sharpen(self) -> bool:
        """See `NetworkObserver`."""
        return False

    def held(self) -> Held:
        """See `NetworkObserver`: nobody asks what went through."""
        return Held()

    def blunt(self) -> None:
        """See `NetworkObserver`."""

    def close(self) -> None:
        """See `NetworkObserver`."""


class WatchedNetwork:
    """Looks through perf events on tracepoints.

    Args:
        mark: ``NAME=VALUE`` in the environment of what the run starts.

    Raises:
        Unwatchable: it cannot be had here; the error says why.
    """

    watched = True

    def __init__(self, mark: bytes = b"") -> None:
        self._own = os.getpid()
        self._mark = mark
        self._lock = threading.Lock()
        self._seen: deque[Seen] = deque()
        self._forgotten_ns = 0
        self._losses: list[tuple[int, int, str]] = []
        self._reached: dict[tuple[str, str, int], Seen] = {}
        self._sharp: Follower | None = None
        self._sharpened = 0
        try:
            self._cpus = processors()
            self._sources = load_sources()
            self._reading = Reading(self._sources, self._own)
            pids = processes.members(self._own, b"")
            names = check_descriptors(len(processes.threads_of(pids)), len(self._cpus))
            self._routes = Follower(self._cpus, self._sources.routes, names=names)
            try:
                self._routes.follow(lambda: self._threads(b""))
            except OSError:
                self._routes.close()
                raise
        except OSError as error:
            raise refusal(error) from error
        self._drained_ns = self._opened_ns = time.monotonic_ns()
        for pid in pids:
            if pid != self._own:
                self._take_over(pid)

    def _threads(self, mark: bytes) -> list[int]:
        return processes.threads_of(processes.members(self._own, mark))

    def _take_over(self, pid: int) -> None:
        """A process that is older than this observer: what it is connected to counts as kept."""
        held = sockets.held_inodes(pid)
        for one in sockets.connected_sockets(pid) if held else ():
            if one.inode in held:
                name = processes.command(pid)
                what = Connection(one.protocol, one.address, one.port, pid=pid, command=name)
                self._reach(Seen(self._opened_ns, what))

    # -- looking -----------------------------------------------------------------------------

    def look(self, asked: Interval) -> Network:
        """See `NetworkObserver`."""
        with self._lock:
            try:
                self._drain()
                return self._gather(asked)
            except Exception as error:  # noqa: BLE001  whatever it is, only this stays unknown
                return Network(why_not=f"it failed: {error}")

    def _drain(self) -> None:
        began, now = self._drained_ns, time.monotonic_ns()
        samples, lost = self._routes.drain()
        if self._sharp is not None:
            more, lost_too = self._sharp.drain()
            samples = sorted([*samples, *more], key=lambda one: one.time_ns)
            lost = lost or lost_too
        for seen in self._reading.read(samples):
            self._add(seen)
        self._drained_ns = now
        if lost:
            self._lose(began, time.monotonic_ns(), "too many events for the kernel's buffer")
        if processors() != self._cpus:
            self._lose(began, time.monotonic_ns(), "a processor was switched on or off")

    def _lose(self, begin_ns: int, end_ns: int, why: str) -> None:
        self._losses.append((begin_ns, end_ns, why))
        if len(self._losses) > _LOSSES_MOST:
            first, second, *rest = self._losses
            self._losses = [(first[0], second[1], why), *rest]

    def _add(self, seen: Seen) -> None:
        self._seen.append(seen)
        if len(self._seen) > _REMEMBERED_MOST:
            self._forgotten_ns = self._seen.popleft().time_ns
        if not seen.what.own:
            self._reach(seen)

    def _reach(self, seen: Seen) -> None:
        what = seen.what
        if what.where is Where.WORLD and what.protocol in {"tcp", "udp"}:
            key = (what.protocol, what.address, what.port)
            if key in self._reached or len(self._reached) < _REACHED_MOST:
                self._reached.setdefault(key, seen)
            else:
                self._lose(seen.time_ns, (1 << 63) - 1, "too many destinations")

    def _gather(self, asked: Interval) -> Network:
        found: dict[tuple[str, str, int, str, int], Connection] = {}
        unsure = asked.reused
        for seen in self._seen:
            if not asked.begin_ns <= seen.time_ns <= asked.end_ns:
                continue
            what = seen.what
            if what.own and not covers(asked.tools, seen.time_ns):
                continue
            if what.own and covers(asked.models, seen.time_ns):
                unsure = True
                continue
            found.setdefault((what.protocol, what.address, what.port, what.path, what.pid), what)
        told = tuple(found.values())
        if asked.local and not told:  # what it began may send later
            alive = processes.members(self._own, self._mark)
            unsure = unsure or processes.begun_since(
                [pid for pid in alive if pid != self._own], asked.begin_ns
            )
        return Network(
            watched=True,
            connections=told[:CONNECTIONS_MOST],
            more=max(0, len(told) - CONNECTIONS_MOST),
            kept=self._kept(asked, told),
            lost=self._lost(asked),
            local=asked.local,
            unsure=unsure,
        )

    def _lost(self, asked: Interval) -> str | None:
        if any(begin < self._opened_ns for begin, _ in asked.tools):
            return "a tool ran before the network was watched"
        if asked.begin_ns < self._forgotten_ns:
            return "too many connections to remember"
        for begin, end, why in self._losses:
            if begin <= asked.end_ns and end >= asked.begin_ns:
                return why
        return None

    def _kept(self, asked: Interval, told: Sequence[Connection]) -> tuple[Connection, ...]:
        """What children reached before the interval, is not told in it, and is still connected."""
        new = {(one.protocol, one.address, one.port) for one in told}
        wanted = {
            key: seen.what
            for key, seen in self._reached.items()
            if seen.time_ns < asked.begin_ns and key not in new
        }
        if not wanted:
            return ()
        own = sockets.held_inodes(self._own)
        views = {processes.network_of(self._own): self._own}
        for what in wanted.values():
            views.setdefault(processes.network_of(what.pid), what.pid)
        views.pop(None, None)
        found: dict[tuple[str, str, int], Connection] = {}
        for pid in views.values():
            for one in sockets.connected_sockets(pid):
                key = (one.protocol, one.address, one.port)
                if key in wanted and one.inode and one.inode not in own:
                    found[key] = wanted[key]
        for key in wanted.keys() - found.keys():
            del self._reached[key]
        return tuple(found.values())

    # -- looking closer ----------------------------------------------------------------------

    def sharpen(self) -> bool:
        """See `NetworkObserver`. Every system call of the machine is a little slower meanwhile."""
        with self._lock:
            self._sharpened += 1
            if self._sharp is None and self._sources.local:
                follower = Follower(self._cpus, self._sources.local, names=False)
                try:
                    follower.follow(lambda: self._threads(self._mark))
                except OSError:
                    follower.close()
                    return False
                self._sharp = follower
            return self._sharp is not None

    def held(self) -> Held:
        """See `NetworkObserver`."""
        return held_by(self._own, self._mark)

    def blunt(self) -> None:
        """See `NetworkObserver`."""
        with self._lock:
            self._sharpened = max(0, self._sharpened - 1)
            if self._sharp is not None and not self._sharpened:
                with contextlib.suppress(OSError):
                    self._drain()
                _close_aside(self._sharp)
                self._sharp = None

    def close(self) -> None:
        """See `NetworkObserver`."""
        with self._lock:
            if self._sharp is not None:
                _close_aside(self._sharp)
                self._sharp = None
            _close_aside(self._routes)


def _close_aside(follower: Follower) -> None:
    """Nobody waits: the kernel takes tens of milliseconds to forget a tracepoint's last user."""
    threading.Thread(target=follower.close, name="crabrt-network", daemon=True).start()


class AutoNetwork:
    """Watches as soon as `open` has been called, if that can be had; until then nobody does."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._now: WatchedNetwork | UnwatchedNetwork = UnwatchedNetwork("it was not watched yet")

    @property
    def watched(self) -> bool:
        """See `NetworkObserver`."""
        return self._now.watched

    def open(self) -> None:
        """Begin to watch. Never raises."""
        try:
            self._now = WatchedNetwork(self._mark)
        except Unwatchable as error:
            self._now = UnwatchedNetwork(error.message)
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on without
            self._now = UnwatchedNetwork(f"it failed: {error}")

    def look(self, asked: Interval) -> Network:
        """See `NetworkObserver`."""
        return self._now.look(asked)

    def sharpen(self) -> bool:
        """See `NetworkObserver`."""
        return self._now.sharpen()

    def held(self) -> Held:
        """See `NetworkObserver`."""
        return self._now.held()

    def blunt(self) -> None:
        """See `NetworkObserver`."""
        self._now.blunt()

    def close(self) -> None:
        """See `NetworkObserver`."""
        self._now.close()


def choose_network(wanted: str, mark: bytes) -> AutoNetwork | UnwatchedNetwork:
    """The network observer for a run.

    Args:
        wanted: ``auto`` or ``off``.
        mark: ``NAME=VALUE`` in the environment of what the run starts.
    """
    return UnwatchedNetwork("it is off") if wanted == "off" else AutoNetwork(mark)


def probe_network() -> Unwatchable | None:
    """Try to watch, and stop again at once: why that cannot be had; None if it can."""
    try:
        WatchedNetwork().close()
    except Unwatchable as error:
        return error
    return None
