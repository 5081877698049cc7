"""Reads the configuration files and merges them with the environment and the caller's arguments."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from crabrt.core.config import Config, user_config_path
from crabrt.errors import UsageError


def load_config(workspace: str | os.PathLike[str], **given: Any) -> Config:
    """The configuration for a run in `workspace`; `given` are the caller's arguments.

    Raises:
        UsageError: a file is not TOML, or a setting is unknown, mistyped, or not allowed there.
    """
    root = Path(workspace)
    own = _read(root / "crab.toml")
    if own is None:
        own = (_read(root / "pyproject.toml") or {}).get("tool", {}).get("crab", {})
    return Config.from_env(user=_read(user_config_path()) or {}, workspace=own, **given)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not a TOML file: {error}", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
