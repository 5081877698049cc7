"""Reads the configuration files of users and workspaces."""

from __future__ import annotations

from pathlib import Path

from crabrt.core.config_files import SettingsFile, parse_settings
from crabrt.errors import UsageError


def read_settings(path: Path, header: str = "") -> SettingsFile | None:
    """The settings in a TOML file; None where there is no such file.

    Args:
        path: of it.
        header: the table that holds them; one that is not there sets nothing.

    Raises:
        UsageError: it cannot be read, is no TOML, or holds something else than a table there.
    """
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"not a TOML file: {error}", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse_settings(path, text, header)
