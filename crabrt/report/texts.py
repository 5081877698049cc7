"""Long texts in a report: how much of one is shown, and what is said of the rest.

A text is a plain string where all of it is there; ``{"x": begin, "more": n, "unit": ...}`` where
it was cut; ``{"out": n, "unit": ...}`` where it was left out on purpose; ``{"bad": why}`` where it
could not be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crabrt.timeline.pages import LongText

Text = str | dict[str, Any]

CHARACTERS = "characters"


def shown(text: str, limit: int) -> Text:
    """`text` (safe already), or its first `limit` characters up to the end of a line."""
    if len(text) <= limit:
        return text
    end = text.rfind("\n", limit // 2, limit) + 1 or limit
    return {"x": text[:end], "more": len(text) - end, "unit": CHARACTERS}


def page_of(long: LongText, limit: int, change: Callable[[str], str]) -> Text:
    """The beginning of a long text, passed through `change`."""
    page = long.page(0, limit)
    text = change(page.text)
    if not page.more:
        return text
    return {"x": text, "more": page.total - page.end, "unit": long.unit}


def left_out(total: int, unit: str = CHARACTERS) -> Text:
    """In place of a text that is not told."""
    return {"out": total, "unit": unit} if total else ""


def unreadable(why: str) -> Text:
    """In place of a text that could not be read."""
    return {"bad": why}


def is_cut(text: Text) -> bool:
    """Whether the end of it is missing as there was too much."""
    return isinstance(text, dict) and "more" in text


def shorter(text: Text, limit: int) -> Text:
    """The same, cut to `limit` characters."""
    if isinstance(text, str):
        return shown(text, limit)
    if "x" not in text or len(text["x"]) <= limit:
        return text
    begin: str = text["x"][:limit]
    rest = text["x"][limit:]
    gone = len(rest) if text["unit"] == CHARACTERS else len(rest.encode())
    return {**text, "x": begin, "more": text["more"] + gone}
