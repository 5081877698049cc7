"""How a report is made: what may be told, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 20 << 20
"""Of a report, unless asked for otherwise: what most mail still carries."""

TEXT_BYTES = 16 << 10
"""Of one message or output, unless asked for otherwise."""

PATCH_BYTES = 32 << 10
"""Of the patch of one file, unless asked for otherwise."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What may be told, and how much of it.

    Attributes:
        redact: leave the texts of messages, replies and outputs out, and the content of files whose
            names promise secrets; rename places and mail addresses. Without it only what looks like
            a key or a token is replaced.
        max_bytes: of the whole report, about. Turns share what is there: a long one is cut first.
        text_bytes: of one message or output (characters, where it is in memory as text).
        patch_bytes: of the patch of one file.
        home: the user's home directory; empty where there is none.
        secrets: values that must not be told wherever they stand.
    """

    redact: bool = True
    max_bytes: int = MAX_BYTES
    text_bytes: int = TEXT_BYTES
    patch_bytes: int = PATCH_BYTES
    home: str = ""
    secrets: tuple[str, ...] = ()
