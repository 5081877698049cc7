"""What did happen: from an observation of the world to the verdict over a turn.

What it is: `choose`, the `Observer` that says what may have changed in a workspace (by looking at
everything, or told by a `watch`); `Observation`, the facts somebody looked up; and `classify`, a
pure function from facts and calls to a `Verdict` with evidence that a person can read. `guess_call`
says before a call runs what it will probably do.
What it is not: it neither compares nor reads files (``workspace`` does), nor decides what to do.
May import: ``workspace`` and everything below.
"""

from crabrt.inspector.classify import CallFact, Observation, classify
from crabrt.inspector.observer import Look, Observer
from crabrt.inspector.observers import choose
from crabrt.inspector.priors import guess_call

__all__ = ["CallFact", "Look", "Observation", "Observer", "choose", "classify", "guess_call"]
