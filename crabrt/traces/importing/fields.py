"""Reading fields of others' files: absent is fine where it may be, wrong is told with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


class Malformed(Exception):
    """A field that matters is absent or of the wrong type; `where` is its place in the file."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


def needed_list(value: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The list under `name`.

    Raises:
        Malformed: there is none.
    """
    found = value.get(name)
    if not isinstance(found, list):
        raise Malformed(f"{name!r} should be a list", where)
    return found


def needed_map(value: Any, what: str, where: str) -> dict[str, Any]:
    """`value`, a map.

    Raises:
        Malformed: it is something else.
    """
    if not isinstance(value, dict):
        raise Malformed(f"{what} should be an object", where)
    return value


def needed_text(value: Mapping[str, Any], name: str, where: str) -> str:
    """The text under `name`.

    Raises:
        Malformed: there is none.
    """
    found = value.get(name)
    if not isinstance(found, str):
        raise Malformed(f"{name!r} should be a text", where)
    return found


def maybe_map(value: Any) -> dict[str, Any]:
    """`value` if it is a map, else an empty one."""
    return value if isinstance(value, dict) else {}


def maybe_text(value: Any) -> str | None:
    """`value` if it is a text, else None."""
    return value if isinstance(value, str) else None


def maybe_number(value: Any) -> float | None:
    """`value` if it is a (finite) number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def maybe_count(value: Any) -> int | None:
    """`value` if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def seconds(value: Any) -> float | None:
    """A moment as seconds since the epoch: a number, or ISO 8601; None for anything else."""
    text = maybe_text(value)
    if text is None:
        return maybe_number(value)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def between_ms(start: float | None, end: float | None) -> float | None:
    """Milliseconds from `start` to `end`; None where one is unknown, or time went backwards."""
    if start is None or end is None or end < start:
        return None
    return round((end - start) * 1e3, 3)


def content_text(content: Any) -> str:
    """The text of a message's content: a text, or a list of parts of which some are texts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(text for part in parts if (text := _part_text(part)))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return maybe_text(maybe_map(part).get("text")) or ""
