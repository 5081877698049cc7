"""Text from elsewhere, made safe to print: what could move a cursor or hide text is shown escaped.

File names, model replies and tool outputs are chosen by agents, and an agent can be talked into
writing terminal escape sequences. Every string that did not originate in this program passes
through here on its way to a terminal.
"""

from __future__ import annotations

import base64
import os
import shlex
import unicodedata
from typing import Any

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
_JOINER = "\N{ZERO WIDTH JOINER}"  # part of ordinary emoji; moves and hides nothing


def safe_text(text: str, *, lines: bool = False) -> str:
    r"""`text` with control, format and unassigned characters as ``\xNN`` or ``\uNNNN``.

    Args:
        text: anything; lone surrogates (undecodable bytes) become the byte they stand for.
        lines: keep newlines and tabs, for text that is shown as a block.
    """
    if text.isprintable() and text.isascii():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def safe_bytes(data: bytes, *, lines: bool = False) -> str:
    r"""`data` as text: UTF-8 where it is, ``\xNN`` for every byte that is not or that controls."""
    return safe_text(data.decode("utf-8", "surrogateescape"), lines=lines)


def safe_path(path: bytes) -> str:
    r"""A path on one line; in double quotes, backslashes doubled, if anything in it was escaped."""
    text = path.decode("utf-8", "surrogateescape")
    shown = safe_text(text)
    if shown == text:
        return text or "."
    return '"' + safe_text(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def shell_word(word: str) -> str:
    """A word of a command line, as bash knows them: safe to show, and to paste.

    With control characters or bytes in it, it is written as ``$'...'``.
    """
    if word.isprintable():
        return shlex.quote(word)
    shown = []
    for char in word:
        if char.isprintable():
            shown.append(f"\\{char}" if char in "\\'" else char)
        else:
            shown += [f"\\x{byte:02x}" for byte in os.fsencode(char)]
    return f"$'{''.join(shown)}'"


def path_fields(path: bytes, key: str = "path") -> dict[str, Any]:
    """A path for JSON: ``{key: str}``, with ``{key}_b64`` beside it where it is not UTF-8."""
    try:
        return {key: path.decode()}
    except UnicodeDecodeError:
        return {
            key: path.decode("utf-8", "backslashreplace"),
            f"{key}_b64": base64.b64encode(path).decode("ascii"),
        }


def _shown(char: str, *, lines: bool) -> str:
    if lines and char in "\n\t":
        return char
    if char == _JOINER or unicodedata.category(char) not in _ESCAPED_CATEGORIES:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, as surrogateescape carries it
        return f"\\x{code - 0xDC00:02x}"
    if char == "\n":
        return "\\n"
    if char == "\t":
        return "\\t"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
