"""crabrt: checkpoints for agent loops. Every turn restorable: files and conversation together.

Wrap the loop you own::

    @crabrt.tool
    def sh(command: str) -> str: ...

    @crabrt.model
    def think(messages: list[dict]) -> dict: ...

    @crabrt.agent(workspace=".")
    def fix(task: str) -> str: ...

The names below are the whole public face. Importing them has no side effects.
"""

from crabrt.core.config import Config
from crabrt.core.version import VERSION as __version__  # noqa: N811  its name in every package
from crabrt.errors import (
    Ambiguous,
    Busy,
    CrabError,
    Damaged,
    DamagedJournal,
    DamagedObject,
    Diverged,
    FormatTooNew,
    InDoubt,
    NoCurrentRun,
    NotDurable,
    NotFound,
    NotResumable,
    ReplayedError,
    RunBusy,
    StoreBusy,
    StoreUnavailable,
    Unprotected,
    UsageError,
    Waiting,
    WorkspaceBusy,
    WorkspaceRefused,
    WouldLoseChanges,
)
from crabrt.runtime import (
    NOT_DONE,
    UNKNOWN,
    Call,
    Done,
    NullRun,
    Run,
    Skipped,
    UnprotectedWarning,
    Usage,
    agent,
    current_run,
    model,
    now,
    open_run,
    random,
    recorded,
    register_codec,
    resume,
    tool,
    uuid4,
)

__all__ = [
    "NOT_DONE",
    "UNKNOWN",
    "Ambiguous",
    "Busy",
    "Call",
    "Config",
    "CrabError",
    "Damaged",
    "DamagedJournal",
    "DamagedObject",
    "Diverged",
    "Done",
    "FormatTooNew",
    "InDoubt",
    "NoCurrentRun",
    "NotDurable",
    "NotFound",
    "NotResumable",
    "NullRun",
    "ReplayedError",
    "Run",
    "RunBusy",
    "Skipped",
    "StoreBusy",
    "StoreUnavailable",
    "Unprotected",
    "UnprotectedWarning",
    "Usage",
    "UsageError",
    "Waiting",
    "WorkspaceBusy",
    "WorkspaceRefused",
    "WouldLoseChanges",
    "__version__",
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
