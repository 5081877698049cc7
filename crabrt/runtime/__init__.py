"""The run: an agent loop whose model and tool calls are recorded, gated, checkpointed, replayed.

What it is: the decorators, the life of a call, the turn machine, the engine that captures in the
background, and how a run is taken up again.
What it is not: a store, a scanner or a restorer (floors below), nor anything that prints.

How it hangs together: ``wrapping`` and ``agents`` turn functions into calls and runs; ``calls`` is
the life of one call, ``outgoing`` what comes before and after one that leaves the machine; ``run``
and ``block`` are the same without decorators, ``points`` what the loop itself asks for. ``session``
is a run while it lives, on the ``ledger`` that writes it down and the ``losses`` it must tell
(``putback``: of restores); ``engine`` and ``checkpoints`` are its background half; ``entering``,
``opening`` and ``resuming`` (on the facts of ``recovery``) begin it, ``meaning`` says which is
meant and ``relatives`` what the rest of its family did; ``replay`` and ``golive`` answer it from
the record (``arrivals``: in its order), ``doubts`` settles what that leaves open, and
``branching`` leaves it. ``scopes`` and ``requests`` tell one call from another, ``messages`` knows
conversations, ``unclosed`` keeps the shells that an exception closed. ``codec`` (on ``standard``
and ``structured``), ``exceptions`` and ``payloads`` store values.
May import: everything below; not ``cli``, ``bench``, ``testing``.
"""

from crabrt.runtime.agents import agent, resume
from crabrt.runtime.block import Call
from crabrt.runtime.losses import (
    CallbackWarning,
    ObserverWarning,
    RestoreWarning,
    UnprotectedWarning,
)
from crabrt.runtime.nullrun import NullRun
from crabrt.runtime.opened import open_run
from crabrt.runtime.outcomes import NOT_DONE, UNKNOWN, Done, Skipped
from crabrt.runtime.recorded import now, random, recorded, uuid4
from crabrt.runtime.run import Run, current_run
from crabrt.runtime.session import register_codec
from crabrt.runtime.settings import SettingWarning
from crabrt.runtime.shells import Shell
from crabrt.runtime.specs import Usage
from crabrt.runtime.wrapping import model, tool

__all__ = [
    "NOT_DONE",
    "UNKNOWN",
    "Call",
    "CallbackWarning",
    "Done",
    "NullRun",
    "ObserverWarning",
    "RestoreWarning",
    "Run",
    "SettingWarning",
    "Shell",
    "Skipped",
    "UnprotectedWarning",
    "Usage",
    "agent",
    "current_run",
    "model",
    "now",
    "open_run",
    "random",
    "recorded",
    "register_codec",
    "resume",
    "tool",
    "uuid4",
]
