"""What there is to see of runs: journal entries folded into frozen values, and how to keep up.

What it is: the one view state behind ``crab log``, ``show``, ``diff``, ``status``, ``runs``, the
terminal interface and the report. Nothing here prints, draws, asks, or writes to a run.
What it is not: a place that knows of widgets, colours or HTML: it gives shapes, words and tones.
Importing it loads nothing: ``crab --help`` shows safe text, too.
May import: operations, inspector, process, workspace, journal, store, core, errors.
"""
