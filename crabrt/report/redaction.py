"""What of a run's text may stand in a report, and what stands there instead of the rest.

Three steps, each on the text as it was stored, before anything in it is escaped: an escape beside a
name would hide it. Keys and tokens are always replaced. A redacted report also renames places and
mail addresses, replaces what is assigned to a name that promises a secret, and leaves texts out as
``crab export --redact`` does: it is better to tell too little than too much.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from crabrt.core.secrets import REDACTED, is_secret_name, redact_text
from crabrt.report.options import ReportOptions
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.traces.values import Renaming

_SECRET_MIN_CHARS = 6  # shorter values would be found in innocent words
_DEPTH_MAX = 300

_NAME = (
    r"[A-Za-z0-9_.-]*(?:api[_-]?key|access[_-]?key|private[_-]?key|secret|passw(?:or)?d|passphrase|"
    r"token|credentials?|authorization)[A-Za-z0-9_-]*"
)
_PROMISING = re.compile(r"(?i)key|secret|pass|token|credential|authoriz")  # some of `_NAME`
_QUOTED = re.compile(rf"""(?i)(\b{_NAME}["']?\s*(?::=|=>|[:=])\s*)(["'])([^"'\n]{{3,}})\2""")
_BARE = re.compile(
    rf"""(?i)(\b{_NAME}["']?\s*[:=]\s*)((?:basic\s+)?[^\s"'`,;()\[\]{{}}<>$]{{4,}})"""
)
_FLAG = re.compile(rf"(?i)(--{_NAME}(?:=|\s+))(?![\s-])([^\s\"'`;|&]+|\"[^\"\n]*\"|'[^'\n]*')")
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]{1,256}:[^/\s@]{1,256}(?=@)")

_SECRET_FILES = (
    ".env", ".env.*", "*.env", ".netrc", ".npmrc", ".pypirc", ".pgpass", ".git-credentials",
    ".htpasswd", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12",
    "*.pfx", "*.jks", "*.keystore", "*.kdbx", "credentials", "credentials.*", "secrets",
    "secrets.*", "*secret*.y*ml", "*secret*.json", "*.ovpn",
)  # fmt: skip
_SECRET_DIRECTORIES = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".docker"})


class Redaction:
    """Decides for one report. Its answers are safe to show.

    Attributes:
        keeps_texts: whether messages, replies and outputs are told at all.
    """

    def __init__(self, options: ReportOptions, workspace: bytes) -> None:
        self.keeps_texts = not options.redact
        self._redact = options.redact
        self._secrets = sorted(
            {one for one in options.secrets if len(one) >= _SECRET_MIN_CHARS}, key=len, reverse=True
        )
        places = [(os.fsdecode(workspace), "/workspace"), (options.home, "/home/user")]
        places = [(old.rstrip("/"), new) for old, new in places]
        self._rename = Renaming(sorted(places, key=lambda place: -len(place[0])))
        # Glued to a letter (the end of an escape sequence, say) a place is still a place, if its
        # name is long enough to be nothing else.
        self._glued = [(old, new) for old, new in places if old.count("/") > 1]

    # -- texts -------------------------------------------------------------------------------

    def raw(self, text: str) -> str:
        """`text` with what must not be told replaced. Not safe to show yet."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = redact_text(text)
        if not self._redact:
            return text
        if _PROMISING.search(text):
            text = _QUOTED.sub(rf"\1\2{REDACTED}\2", text)
            text = _FLAG.sub(rf"\1{REDACTED}", text)
            text = _BARE.sub(_without_assigned, text)
        if "@" in text or "/" in text:
            text = self._rename(_IN_ADDRESS.sub(REDACTED, text))
        for old, new in self._glued:
            text = text.replace(old, new)
        return text

    def line(self, text: str, limit: int = 400) -> str:
        """`text` on one line of at most `limit` characters."""
        text = safe_text(self.raw(text))
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def block(self, text: str) -> str:
        """`text` with its lines."""
        return safe_text(self.raw(text), lines=True)

    def path(self, path: bytes, limit: int = 400) -> str:
        """A path, in quotes if anything in it is escaped."""
        text = self.raw(os.fsdecode(path))
        shown = safe_path(os.fsencode(text))
        return shown if len(shown) <= limit else "…" + shown[1 - limit :]

    def value(self, value: Any) -> Any:
        """A stored value with all its texts redacted, names of fields too."""
        return _mapped(value, self.raw)

    def content(self, data: bytes) -> bytes:
        """The content of a text file."""
        text = data.decode("utf-8", "surrogateescape")
        return self.raw(text).encode("utf-8", "surrogateescape")

    # -- places ------------------------------------------------------------------------------

    def hides_file(self, path: bytes) -> bool:
        """Whether the content of a file is left out as its name promises secrets."""
        if not self._redact:
            return False
        *above, name = os.fsdecode(path).lower().split("/")
        if name.endswith((".example", ".sample", ".template", ".pub")):
            return False
        in_secret_place = not _SECRET_DIRECTORIES.isdisjoint(above)
        return in_secret_place or any(fnmatchcase(name, one) for one in _SECRET_FILES)

    def place(self, path: bytes) -> str:
        """The workspace: its name only, in a redacted report."""
        if not self._redact:
            return self.path(path)
        return safe_path(os.path.basename(path.rstrip(b"/")) or b"/")


def _without_assigned(found: re.Match[str]) -> str:
    """An assignment without what is assigned, if that looks like a literal and not like code."""
    before, value = found[1], found[2]
    name = before.rstrip().rstrip(":=").rstrip().rstrip("\"'")
    if value.isdigit() or name.lower().endswith("tokens") or value.startswith(REDACTED[:-1]):
        return found[0]
    basic = value.lower().startswith("basic ")
    literal = (
        basic or name.isupper() or any(char.isdigit() for char in value) or before.endswith("=")
    )
    return before + REDACTED if literal else found[0]


def _mapped(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    if depth > _DEPTH_MAX:
        return "…"
    if isinstance(value, str):
        return change(value)
    if isinstance(value, bytes):
        text = change(value.decode("utf-8", "surrogateescape"))
        return text.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {
            _mapped(k, change): REDACTED
            if is_secret_name(k) and v
            else _mapped(v, change, depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_mapped(item, change, depth + 1) for item in value]
    return value
