"""crabrt: checkpoints for agent loops. Every turn restorable: files and conversation together.

Wrap the loop you own::

    @crabrt.tool
    def sh(command: str) -> str: ...

    @crabrt.model
    def think(messages: list[dict]) -> dict: ...

    @crabrt.agent(workspace=".")
    def fix(task: str) -> str: ...

The names in ``__all__`` are the whole public face. Importing them has no side effects. The floors
that make a run are loaded when the first of their names is used, so that importing crabrt costs
little where nothing is protected (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    RestoreFailed,
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

if TYPE_CHECKING:
    from crabrt.core.config import Config
    from crabrt.runtime import (
        NOT_DONE,
        UNKNOWN,
        Call,
        CallbackWarning,
        Done,
        NullRun,
        ObserverWarning,
        RestoreWarning,
        Run,
        SettingWarning,
        Shell,
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
    "CallbackWarning",
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
    "ObserverWarning",
    "ReplayedError",
    "RestoreFailed",
    "RestoreWarning",
    "Run",
    "RunBusy",
    "SettingWarning",
    "Shell",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'crabrt' has no attribute {name!r}")
    from crabrt import runtime  # noqa: PLC0415  see the module
    from crabrt.core.config import Config  # noqa: PLC0415  the same

    value = globals()[name] = Config if name == "Config" else getattr(runtime, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
