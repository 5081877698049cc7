"""Patches in the ``*** Begin Patch`` form: parsed, and applied to lines. No I/O.

Files are added, deleted, updated and moved; a hunk of an update is found by its context and removed
lines, exactly first, then with trailing blanks ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class PatchFailed(Exception):
    """The patch is malformed, or does not fit the file. Says which hunk."""


@dataclass
class Hunk:
    """Lines that are there, lines that replace them, and what comes before (``@@ text``)."""

    before: str = ""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


@dataclass
class FileChange:
    """What happens to one file: ``add``, ``delete`` or ``update``."""

    how: str
    path: str
    hunks: list[Hunk] = field(default_factory=list)
    move_to: str | None = None

    def added(self) -> str:
        """The content of an added file."""
        return "".join(line + "\n" for hunk in self.hunks for line in hunk.new)


_HEADS = {"*** Add File: ": "add", "*** Delete File: ": "delete", "*** Update File: ": "update"}
_MOVE = "*** Move to: "


def parse_patch(text: str) -> list[FileChange]:
    """The changes of a patch, in order.

    Raises:
        PatchFailed: it is not of this form.
    """
    lines = text.split("\n")
    try:
        start = lines.index("*** Begin Patch")
    except ValueError as error:
        raise PatchFailed("there is no *** Begin Patch") from error
    changes: list[FileChange] = []
    for line in lines[start + 1 :]:
        head = next((head for head in _HEADS if line.startswith(head)), None)
        if line.startswith("*** End Patch"):
            return changes
        if head is not None:
            changes.append(FileChange(_HEADS[head], line[len(head) :].strip()))
        elif not changes:
            raise PatchFailed(f"this belongs to no file: {line[:60]!r}")
        elif line.startswith(_MOVE):
            changes[-1].move_to = line[len(_MOVE) :].strip()
        elif line != "*** End of File":
            _hunk_line(changes[-1], line)
    raise PatchFailed("there is no *** End Patch")


def _hunk_line(change: FileChange, line: str) -> None:
    if line.startswith("@@"):
        change.hunks.append(Hunk(before=line[2:].strip()))
        return
    if not change.hunks:
        change.hunks.append(Hunk())
    hunk, sign, rest = change.hunks[-1], line[:1], line[1:]
    if sign not in {"+", "-", " ", ""}:
        raise PatchFailed(f"a line begins with none of + - and a blank: {line[:60]!r}")
    if sign != "+":
        hunk.old.append(rest)
    if sign != "-":
        hunk.new.append(rest)


def apply_hunks(content: str, hunks: list[Hunk]) -> str:
    """`content` with every hunk applied, in order.

    Raises:
        PatchFailed: a hunk does not fit.
    """
    lines = content.split("\n")
    at = 0
    for number, hunk in enumerate(hunks, 1):
        if hunk.before:
            at = _find(lines, [hunk.before], at, stripped=True)
            at = 0 if at < 0 else at + 1
        if not hunk.old:
            place = at if hunk.before else len(lines) - (lines[-1:] == [""])
            lines[place:place] = hunk.new
            at = place + len(hunk.new)
            continue
        found = _find(lines, hunk.old, at)
        if found < 0:
            found = _find(lines, hunk.old, 0)
        if found < 0:
            raise PatchFailed(f"hunk {number} is not found: {hunk.old[0][:60]!r}")
        lines[found : found + len(hunk.old)] = hunk.new
        at = found + len(hunk.new)
    return "\n".join(lines)


def _find(lines: list[str], wanted: list[str], start: int, *, stripped: bool = False) -> int:
    ways = (str.strip,) if stripped else (str, str.rstrip)
    for way in ways:
        goal = [way(line) for line in wanted]
        for at in range(start, len(lines) - len(goal) + 1):
            if [way(line) for line in lines[at : at + len(goal)]] == goal:
                return at
    return -1
