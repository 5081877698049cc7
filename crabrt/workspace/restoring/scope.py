"""The paths a restore is about: checked, and asked whether something is among or below them."""

from __future__ import annotations

from collections.abc import Iterable

from crabrt.errors import UsageError
from crabrt.workspace.restoring.handles import split


class Scope:
    """The paths a restore is about; none given means everything."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        self.paths = tuple(sorted({_clean(path) for path in paths}))
        self.all = not self.paths or b"" in self.paths
        if self.all:
            self.paths = ()
        self._set = frozenset(self.paths)

    def __contains__(self, path: bytes) -> bool:
        if self.all:
            return True
        while path:
            if path in self._set:
                return True
            path = split(path)[0]
        return False


def _clean(path: bytes) -> bytes:
    text = path.rstrip(b"/") if path != b"/" else path
    while text.startswith(b"./"):
        text = text[2:].lstrip(b"/")
    if text == b".":
        return b""
    if text and (b"\0" in text or any(part in (b"", b".", b"..") for part in text.split(b"/"))):
        raise UsageError(
            f"{path[:200]!r} is not a path inside the workspace", hint="relative, without .."
        )
    return text
