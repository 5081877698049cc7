"""The network observer: what the processes of a run reached out to.

What it is: `choose_network`, a `NetworkObserver` whose `look` tells as `Network` what was connected
to in an `Interval`, in a process that has ended or not; `Held`, what was connected when a call
began; `Spans`, when tools and models ran; and `probe_network`, whether that works here. It takes
root.
What it is not: a judge (``classify`` is), nor a filter: nobody is kept from anything.
May import: ``crabrt.workspace`` and everything below. docs/internals/network.md says what is
believed of the kernel, and why.
"""

from crabrt.inspector.network.held import Held
from crabrt.inspector.network.observer import (
    AutoNetwork,
    Interval,
    NetworkObserver,
    UnwatchedNetwork,
    WatchedNetwork,
    choose_network,
    probe_network,
)
from crabrt.inspector.network.spans import Spans
from crabrt.inspector.network.values import Connection, Network, Where

__all__ = [
    "AutoNetwork",
    "Connection",
    "Held",
    "Interval",
    "Network",
    "NetworkObserver",
    "Spans",
    "UnwatchedNetwork",
    "WatchedNetwork",
    "Where",
    "choose_network",
    "probe_network",
]
