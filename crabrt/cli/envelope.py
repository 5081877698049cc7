"""The JSON envelope: the one shape of everything ``--json`` prints, errors included."""

from __future__ import annotations

import json
from typing import Any

from crabrt.errors import Ambiguous, CrabError, Diverged, WouldLoseChanges
from crabrt.timeline.safe_text import path_fields

VERSION = 1
"""Of the envelope. Fields may be added; a change of meaning counts it up."""


def envelope(command: str, data: Any, error: dict[str, Any] | None = None) -> str:
    """One line of ASCII JSON: ``{"version", "command", "data", "error"}``."""
    return json.dumps({"version": VERSION, "command": command, "data": data, "error": error})


def error_fields(error: CrabError) -> dict[str, Any]:
    """What the envelope says of an error: kind, message, where, hint, exit, and its particulars."""
    fields: dict[str, Any] = {
        "kind": error.kind,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "exit": int(error.exit_code),
    }
    if isinstance(error, Ambiguous):
        fields["candidates"] = error.candidates
    if isinstance(error, WouldLoseChanges):
        fields["paths"] = [path_fields(path) for path in error.paths]
    if isinstance(error, Diverged):
        fields["diff"] = error.diff
    return fields
