"""What ``crab bench`` runs: what protection costs on this machine, and whether it is right.

What it is: a function from options to a `Report` of plain values for each benchmark (`latency`,
`traffic`, `overhead`, `density`, `any_turn`, `recovery`, `mechanisms`,
`sparsity`, `tui`);
`trees` that look like real source, `recorded` runs on their workspaces; `peers`, each a tool people
would use instead; `harness`, which interleaves and repeats; `apart`, which does work in processes
of their own.
What it is not: a test. Nothing here asserts a time; a bar is a ratio with "met" beside it.

May import: everything below ``cli``. docs/benchmarks.md has the last results.
"""

from crabrt.bench.any_turn import AnyTurnOptions, measure_any_turn
from crabrt.bench.density import DensityOptions, measure_density
from crabrt.bench.interface import TuiOptions, measure_tui
from crabrt.bench.latency import LatencyOptions, measure_latency
from crabrt.bench.mechanisms import MechanismsOptions, measure_mechanisms
from crabrt.bench.overhead import OverheadOptions, measure_overhead
from crabrt.bench.recovery import RecoveryOptions, measure_recovery
from crabrt.bench.report import Bar, Report, Series
from crabrt.bench.sparsity import SparsityOptions, measure_sparsity
from crabrt.bench.traffic import TrafficOptions, measure_traffic

__all__ = [
    "AnyTurnOptions",
    "Bar",
    "DensityOptions",
    "LatencyOptions",
    "MechanismsOptions",
    "OverheadOptions",
    "RecoveryOptions",
    "Report",
    "Series",
    "SparsityOptions",
    "TrafficOptions",
    "TuiOptions",
    "measure_any_turn",
    "measure_density",
    "measure_latency",
    "measure_mechanisms",
    "measure_overhead",
    "measure_recovery",
    "measure_sparsity",
    "measure_traffic",
    "measure_tui",
]
