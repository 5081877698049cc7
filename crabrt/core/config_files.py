"""Configuration files: tables of settings that know on which line each of them stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from crabrt.errors import UsageError

_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")


class SettingsFile(msgspec.Struct, frozen=True):
    """A table of a TOML file.

    Attributes:
        path: of the file.
        header: the table's name in it, e.g. ``tool.crab``; empty for the whole file.
        values: what it sets.
        text: the file.
    """

    path: Path
    header: str
    values: Mapping[str, Any]
    text: str

    def place(self, key: str) -> str:
        """Where `key` is set, for people: ``path:line``, or the path if no line begins with it."""
        word = re.escape(key)
        setting = re.compile(rf"\s*(?:{word}|\"{word}\"|'{word}')\s*=")
        header = ""
        for number, line in enumerate(self.text.split("\n"), 1):
            found = _HEADER.match(line)
            if found:
                header = found[1].strip()
            elif header == self.header and setting.match(line):
                return f"{self.path}:{number}"
        return str(self.path)


def parse_settings(path: Path, text: str, header: str = "") -> SettingsFile:
    """The settings in the text of a TOML file.

    Args:
        path: of it, for people.
        text: what it holds.
        header: the table that holds them; one that is not there sets nothing.

    Raises:
        UsageError: it is no TOML, or holds something else than a table there.
    """
    import tomllib  # noqa: PLC0415 - most people have no such file

    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not a TOML file: {error}", where=str(path)) from error
    for name in header.split(".") if header else ():
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{name!r} is no table", where=str(path))
    return SettingsFile(path, header, table, text)
