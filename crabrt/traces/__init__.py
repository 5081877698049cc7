"""Traces: runs as files that can be read, given away, and run again.

What it is: the schema of a trace (`schema`, `values`), a run of the store as one (`exporting`),
others' sessions as ones (`importing`), files in and out (`reading`, `writing`), and the replay:
what a recorded call does (`actions`), doing it (`hands`), the loop round it (`replaying`), and the
oracle at the boundaries of its turns (`watching`).
What it is not: a backup (files are not in a trace), nor a benchmark (``bench`` drives `replay`).

May import: ``testing`` (the oracle), ``runtime``, ``operations`` and everything below.
"""

from crabrt.traces.errors import DamagedTrace, NotATrace
from crabrt.traces.exporting import Options, export_run
from crabrt.traces.importing import FORMATS, import_file
from crabrt.traces.reading import read_trace
from crabrt.traces.replaying import ReplayOptions, replay
from crabrt.traces.report import CallFacts, Judgement, OracleAnswer, ReplayReport, TurnFacts
from crabrt.traces.schema import Header, ModelCall, ToolCall, Trace, Turn
from crabrt.traces.writing import lines, trace_lines, write_file

__all__ = [
    "FORMATS",
    "CallFacts",
    "DamagedTrace",
    "Header",
    "Judgement",
    "ModelCall",
    "NotATrace",
    "Options",
    "OracleAnswer",
    "ReplayOptions",
    "ReplayReport",
    "ToolCall",
    "Trace",
    "Turn",
    "TurnFacts",
    "export_run",
    "import_file",
    "lines",
    "read_trace",
    "replay",
    "trace_lines",
    "write_file",
]
