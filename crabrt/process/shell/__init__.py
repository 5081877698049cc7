"""A bash session for agents, as a tool that lasts: `Shell`.

What it is: commands with time limits, live output and exit status in one bash whose directory,
variables and background jobs stay; in a PID and mount namespace of its own where that is possible.
The session outlives the loop's process: `Shell.attach` takes it up by its `ShellRecord`. Where it
is gone and there is no image of it, `Shell.rebuild` makes another from its `ShellState`.
What it is not: part of a run. Journalling and imaging are decided above.
May import: ``crabrt.process.table``, ``crabrt.workspace`` and everything below.
docs/shell.md says what users are promised.
"""

from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.session import prepare_channels
from crabrt.process.shell.shell import Shell
from crabrt.process.shell.state import ShellState
from crabrt.process.shell.values import Isolation, ShellOptions, ShellRecord, ShellResult

__all__ = [
    "Isolation",
    "Shell",
    "ShellOptions",
    "ShellRecord",
    "ShellResult",
    "ShellState",
    "ShellUnavailable",
    "prepare_channels",
]
