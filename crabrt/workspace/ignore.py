"""What is left alone: ``.crabignore`` files and configured excludes, in gitignore syntax.

Excluded paths are neither captured nor ever deleted. Nothing is ignored by default. Where there are
no patterns there is no matcher (None), and nobody pays for matching.

Names are bytes and the matching library wants text: both sides are read as Latin-1, which maps
every byte to one character, so that names which are not UTF-8 match themselves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

IGNORE_FILE = b".crabignore"
"""Read at the workspace root and in every directory below; a deeper file overrules a higher one."""

IGNORE_FILE_MAX_BYTES = 1 << 20

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Matcher:
    """The patterns in force in one directory: its own, then those of the directories above.

    A line that is no pattern matches nothing, as in git.

    Attributes:
        patterns: its own.
    """

    __slots__ = ("_above", "_base", "_spec", "patterns")

    def __init__(self, lines: Sequence[str], base: bytes, above: Matcher | None) -> None:
        from pathspec import GitIgnoreSpec  # noqa: PLC0415 - 20 ms that most imports never need

        try:
            self._spec = GitIgnoreSpec.from_lines(lines)
        except ValueError:
            self._spec = GitIgnoreSpec.from_lines([one for one in lines if _is_pattern(one)])
        self.patterns = tuple(lines)
        self._base = base + b"/" if base else b""
        self._above = above

    def ignores(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether `path` (from the workspace, inside this matcher's directory) is excluded."""
        text = path[len(self._base) :].decode("latin-1")
        verdict = self._spec.check_file(text + "/" if is_dir else text).include
        if verdict is not None:
            return bool(verdict)
        return self._above is not None and self._above.ignores(path, is_dir=is_dir)


def _is_pattern(line: str) -> bool:
    """Whether `line` is a pattern in gitignore syntax (an exclamation mark alone is not)."""
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - as above

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


class Covered:
    """Which paths a matcher leaves alone, by themselves or with a directory above them.

    It remembers directories, so many paths in few of them cost little.
    """

    def __init__(self, rules: Matcher | None) -> None:
        self._rules = rules
        self._within: dict[bytes, bool] = {b"": False}

    def has(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether `path` is left alone."""
        if self._rules is None or not path:
            return False
        return self.within(path.rpartition(b"/")[0]) or self._rules.ignores(path, is_dir=is_dir)

    def within(self, directory: bytes) -> bool:
        """Whether everything in `directory` is."""
        if self._rules is None:
            return False
        unknown: list[bytes] = []
        while directory not in self._within:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        inside = self._within[directory]
        for one in reversed(unknown):
            inside = inside or self._rules.ignores(one, is_dir=True)
            self._within[one] = inside
        return inside


def configured(exclude: Sequence[str], store: bytes | None) -> Matcher | None:
    """The matcher of configured excludes, and of the store where it lies inside the workspace.

    Args:
        exclude: gitignore patterns, anchored at the workspace.
        store: the store's path relative to the workspace, if it is inside.
    """
    lines = [line.encode("utf-8", "surrogateescape").decode("latin-1") for line in exclude]
    if store is not None:
        lines.append("/" + _literal(store) + "/")
    return Matcher(lines, b"", None) if lines else None


def read_file(dir_fd: int) -> bytes:
    """The bytes of the ignore file in a directory; none where it is absent or no plain file."""
    try:
        fd = os.open(IGNORE_FILE, _READ_FLAGS, dir_fd=dir_fd)
    except OSError:
        return b""  # absent, a link, or locked: captured (or reported) like any other name
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return os.read(fd, IGNORE_FILE_MAX_BYTES)
    finally:
        os.close(fd)


def with_file(data: bytes, base: bytes, above: Matcher | None) -> Matcher | None:
    """The matcher in `base`, given the bytes of its ``.crabignore``."""
    lines = [
        line
        for line in data.decode("latin-1").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    return Matcher(lines, base, above) if lines else above


def _literal(path: bytes) -> str:
    special = b"\\*?[]!# "
    return "".join(("\\" if byte in special else "") + chr(byte) for byte in path)
