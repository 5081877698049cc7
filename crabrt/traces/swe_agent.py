"""SWE-agent's own commands, as far as they touch files: open, create, edit, insert, editor calls.

They act on a file that is open, which is the only state kept here. Three generations are
understood: ``edit N:M`` with the text up to ``end_of_edit``, ``edit 'old' 'new'``, and
``str_replace_editor``. Linting, which undoes some edits, is not part of it.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex

from crabrt.traces.actions import (
    Action,
    EditFile,
    InsertLines,
    Nothing,
    ReadFile,
    Replacement,
    Unknown,
    WriteFile,
    editor_action,
)

_LINES = re.compile(r"edit\s+(\d+):(\d+)[ \t]*\n(.*?)\n?end_of_edit\s*\Z", re.DOTALL)
_FLAGS = {"--file_text", "--old_str", "--new_str", "--insert_line"}


class ReplaceLines:
    """Lines `first` to `last` (from 1, both included) of a file become `text`."""

    def __init__(self, path: str, first: int, last: int, text: str) -> None:
        self.path, self.first, self.last, self.text = path, first, last, text


class OpenFile:
    """The editor: which file is open."""

    def __init__(self) -> None:
        self.path: str | None = None

    def understand(self, command: str, cwd: str | None) -> Action | ReplaceLines:
        """What `command` does to files; opening one is remembered."""
        by_lines = _LINES.match(command)
        if by_lines is not None:
            if self.path is None:
                return Unknown("no file is open")
            first, last, text = by_lines.groups()
            return ReplaceLines(self.path, int(first), int(last), text)
        try:
            word, *words = shlex.split(command)
        except ValueError as error:
            return Unknown(f"the editor's command cannot be read: {error}")
        if word == "str_replace_editor":
            return _editor(words)
        if word in {"open", "create"} and words:
            self.path = os.path.join(cwd or "", words[0])
            return ReadFile(self.path) if word == "open" else WriteFile(self.path, b"\n")
        if word in {"edit", "insert"}:
            return self._edit(word, words)
        return Nothing("it only looks")

    def _edit(self, word: str, words: list[str]) -> Action:
        if self.path is None:
            return Unknown("no file is open")
        if word == "edit" and len(words) >= 2:
            everywhere = words[2:3] in (["True"], ["true"])
            return EditFile(self.path, (Replacement(words[0], words[1], everywhere),))
        if word == "insert" and words:
            line = int(words[1]) if words[1:2] and words[1].isdecimal() else -1
            return InsertLines(self.path, line, words[0])
        return Unknown("the edit lacks its texts")


def _editor(words: list[str]) -> Action:
    if len(words) < 2:
        return Unknown("it names no file")
    arguments: dict[str, object] = {"command": words[0], "path": words[1]}
    for flag, value in itertools.pairwise(words[2:]):
        if flag in _FLAGS:
            number = flag == "--insert_line" and value.isdecimal()
            arguments[flag.removeprefix("--")] = int(value) if number else value
    return editor_action(arguments)
