"""What did happen: from an observation of the world to the verdict over a turn.

What it is: `Observation`, the facts somebody looked up, and `classify`, a pure function from facts
and calls to a `Verdict` with evidence that a person can read.
What it is not: it neither scans nor reads (``workspace`` does), nor decides what to do about it.
May import: ``workspace`` and everything below.
"""

from crabrt.inspector.classify import CallFact, Observation, classify

__all__ = ["CallFact", "Observation", "classify"]
