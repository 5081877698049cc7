"""What ``crab bench`` runs: the cost of protection on this machine, beside plain calls and peers.

What it is: `latency` (how long) and `traffic` (how many bytes), each a function from options to a
`Report` of plain values; `trees` that look like real source; `peers`, each a tool people would use
instead; `harness`, which interleaves, repeats and compares. What it is not: a test. Nothing here
asserts a time; a bar is a ratio with "met" beside it.

May import: everything below ``cli``. docs/benchmarks.md has the last results.
"""

from crabrt.bench.latency import LatencyOptions, measure_latency
from crabrt.bench.report import Bar, Report, Series
from crabrt.bench.traffic import TrafficOptions, measure_traffic

__all__ = [
    "Bar",
    "LatencyOptions",
    "Report",
    "Series",
    "TrafficOptions",
    "measure_latency",
    "measure_traffic",
]
