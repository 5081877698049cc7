"""Reads the configuration files and merges them with the environment and the caller's arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from crabrt.core.config import Config, unknown_variables, user_config_path
from crabrt.operations.settings_files import read_settings
from crabrt.runtime.losses import warn


class SettingWarning(UserWarning):
    """A ``CRAB_*`` variable is set that is no setting, perhaps for a typing error. Given once."""


_told: set[str] = set()


def load_config(workspace: str | os.PathLike[str], **given: Any) -> Config:
    """The configuration for a run in `workspace`; `given` are the caller's arguments.

    Raises:
        UsageError: a file is not TOML, or a setting is unknown, mistyped, or not allowed there.
    """
    root = Path(workspace)
    own = read_settings(root / "crab.toml")
    if own is None:
        own = read_settings(root / "pyproject.toml", "tool.crab")
    return Config.from_env(user=read_settings(user_config_path()), workspace=own, **given)


def warn_of_unknown_variables() -> None:
    """Warn of variables that look like settings and do nothing; of each once in a process."""
    for name, nearest in unknown_variables().items():
        if name not in _told:
            _told.add(name)
            meant = f"; did you mean {nearest}?" if nearest else ""
            warn(f"{name} is set, and is no setting{meant}", SettingWarning)
