"""A run as one HTML file, to send to somebody: timeline, plots, calls and diffs, redacted.

What it is: the view state of ``timeline`` and what the store holds of each turn, written into a
page that needs no network and in which nothing of the run can act. ``redaction`` decides what may
be told, ``rowdata``, ``turndata`` and ``filedata`` turn the run into plain values of bounded size,
``head`` and ``lanes`` draw what needs no script, ``page`` puts it together; the files in
``static`` are the page's style and script.
What it is not: a second view of runs. What a turn did, and how safe it is, the timeline says.
May import: traces, timeline, operations, inspector, process, workspace, journal, store, core,
errors.
"""

from crabrt.report.building import Report, make_report
from crabrt.report.options import ReportOptions

__all__ = ["Report", "ReportOptions", "make_report"]
