"""What a turn changed in the files, as values to show: paths, and patches of what is text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from crabrt.core.content import Content
from crabrt.core.trees import Entry
from crabrt.report import texts
from crabrt.report.options import ReportOptions
from crabrt.report.redaction import Redaction
from crabrt.store.contents import read_bytes
from crabrt.timeline import amounts
from crabrt.timeline.patches import describe, file_patch
from crabrt.timeline.reader import Changes, PatchLine, RunReader, patch_lines
from crabrt.workspace import Change

CHANGES_MOST = 200
"""So many changed paths of a turn are listed."""

SPELLED_MOST_BYTES = 256 << 10
"""A larger file is named, not spelled out: comparing it takes too long for a page."""

_LINES_MOST = 2_000


class FileTeller:
    """Tells what turns changed."""

    def __init__(self, reader: RunReader, redaction: Redaction, options: ReportOptions) -> None:
        self._reader, self._redaction, self._options = reader, redaction, options

    def data(self, changes: Changes) -> dict[str, Any]:
        """The changes of a turn, in path order."""
        data: dict[str, Any] = {"items": [self._change(one) for one in _worth(changes.items)]}
        if changes.more:
            data["more"] = True
        if changes.why_not:
            data["why"] = self._redaction.line(changes.why_not)
        return data

    def _change(self, change: Change) -> dict[str, Any]:
        path = self._redaction.path(change.path)
        sign = "+" if change.before is None else "-" if change.after is None else "~"
        data: dict[str, Any] = {"p": path, "s": sign, "how": describe(change)}
        size = _sizes(change.before, change.after)
        if size:
            data["size"] = size
        if "content" in change.how or "target" in change.how or sign != "~":
            data |= self._patch(change)
        return data

    def _patch(self, change: Change) -> dict[str, Any]:
        if self._redaction.hides_file(change.path):
            return {"note": "content redacted: a file of this name often holds secrets"}
        if max(_size(change.before), _size(change.after)) > SPELLED_MOST_BYTES:
            return {"note": "too large to be spelled out here"}
        lines = patch_lines(file_patch(change, self._read))
        kept = [line for line in itertools.islice(lines, _LINES_MOST) if _is_said(line)]
        if any(line.text.startswith("Binary files") and line.kind == "head" for line in kept):
            return {"note": "not text"}
        body = [self._redaction.block(line.text) for line in kept if line.kind != "head"]
        text = texts.shown("\n".join(body), self._options.patch_bytes)
        rest = sum(1 for _ in lines)
        if rest and isinstance(text, str):
            text = {"x": text, "more": rest, "unit": "lines"}
        if not text and change.before is not None and change.after is not None:
            return {"note": "what differs is redacted"}
        return {"patch": text} if text else {}

    def _read(self, content: Content) -> bytes:
        """The content, redacted before it is compared: a key over many lines is seen as one."""
        data = read_bytes(content, self._reader.store)
        return data if b"\0" in data[:8_000] else self._redaction.content(data)


def _worth(items: Sequence[Change]) -> Iterator[Change]:
    """Without directories of which only the times or the link counts moved."""
    return (item for item in items[:CHANGES_MOST] if item.how != ("links",))


def _is_said(line: PatchLine) -> bool:
    """Whether a line says what its path and sign do not say already."""
    return line.kind != "head" or line.text.startswith("Binary files")


def _sizes(before: Entry | None, after: Entry | None) -> str:
    old, new = _size(before), _size(after)
    if before is None or before.content is None:
        return amounts.size(new) if after is not None and after.content is not None else ""
    if after is None or after.content is None or old == new:
        return amounts.size(old)
    return f"{amounts.size(old)} → {amounts.size(new)}"


def _size(entry: Entry | None) -> int:
    return entry.content.size if entry is not None and entry.content is not None else 0
