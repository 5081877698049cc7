"""What must not be shown: values under names that say so, and text shaped like a token.

Clients pass their keys as arguments (``api_key=``, headers). A journal is kept for months and shown
to others, so a value under such a name is never stored. Text is another matter: what a tool printed
is part of the conversation and replays exactly; `redact_text` is for showing it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_NAMES = re.compile(
    r"(?i)(^|[_-])(api[_-]?key|secret([_-](key|access[_-]key))?|password|passwd|authorization|"
    r"(access|auth|bearer|refresh|session|id)[_-]?token|private[_-]?key|client[_-]?secret|"
    r"x-api-key|cookie)$"
)

_TOKENS = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}|glpat-[A-Za-z0-9_-]{16,})"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)


def is_secret_name(name: object) -> bool:
    """Whether a value under `name` is a secret by convention: ``api_key``, ``Authorization``."""
    return isinstance(name, str) and _NAMES.search(name) is not None


def without_secrets(value: Any) -> Any:
    """`value` with what lies under secret names replaced, in mappings however deep in it.

    Values that are already absent (None, an empty string) stay: that a key is missing is no secret.
    """
    if isinstance(value, Mapping):
        return {
            key: REDACTED if is_secret_name(key) and inner else without_secrets(inner)
            for key, inner in value.items()
        }
    if type(value) in {list, tuple}:
        return type(value)(without_secrets(inner) for inner in value)
    return value


def redact_text(text: str) -> str:
    """`text` for showing, with everything that is shaped like a token or a private key replaced."""
    return _TOKENS.sub(REDACTED, text)


def secret_spans(text: str) -> list[tuple[int, int]]:
    """From where to where in `text` something is shaped like a token or a private key, in order."""
    return [found.span() for found in _TOKENS.finditer(text)]
