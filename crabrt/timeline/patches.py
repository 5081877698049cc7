"""Changes between two states as a patch that ``git apply`` and ``patch`` understand.

What a patch cannot say (owners, times, extended attributes, FIFOs) stands in lines that begin with
``#``, which those programs skip. Texts are bytes underneath: they pass through ``surrogateescape``
and come out as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from crabrt.core.content import Content
from crabrt.core.trees import Entry, Kind
from crabrt.timeline.aligning import Alignment, hunks
from crabrt.workspace import Change

TEXT_MAX_BYTES = 1 << 20
"""A larger file is named in a patch, not spelled out."""

_TEXT_MAX_LINES = 20_000
_SNIFFED_BYTES = 8_000  # as git: a NUL that early makes a file binary
_TYPE_BITS = {Kind.FILE: 0o100000, Kind.SYMLINK: 0o120000, Kind.FIFO: 0o010000, Kind.DIR: 0o040000}
_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}

ReadContent = Callable[[Content], bytes]


@dataclass(frozen=True)
class FileStat:
    """How much of a file changed: lines, or bytes where it is `binary` or too large."""

    added: int
    removed: int
    binary: bool
    before_bytes: int
    after_bytes: int


def file_patch(change: Change, read: ReadContent) -> Iterator[str]:
    """The lines of one change, without newlines at their ends; `patch_bytes` encodes them."""
    sides = [side for side in (change.before, change.after) if side is not None]
    if all(side.kind in (Kind.DIR, Kind.FIFO) for side in sides):
        yield f"# {git_path(change.path)}: {describe(change)}"
        return
    old, new = git_path(b"a/" + change.path), git_path(b"b/" + change.path)
    before = _patchable(change.before)
    after = _patchable(change.after)
    if before is not None and after is not None and before.kind != after.kind:
        # as git shows a change of type: the one goes, the other comes
        yield from _one_file(old, new, before, None, read)
        yield from _one_file(old, new, None, after, read)
    elif before is not None or after is not None:
        yield from _one_file(old, new, before, after, read)
    beyond = [how for how in change.how if how in ("owner", "times", "xattrs", "links")]
    if beyond and "content" not in change.how:
        yield f"# {git_path(change.path)}: {', '.join(sorted(beyond))}"


def patch_bytes(lines: Iterable[str]) -> Iterator[bytes]:
    """The lines as they belong into a file or a pipe: exact bytes."""
    for line in lines:
        yield line.encode("utf-8", "surrogateescape") + b"\n"


def file_stat(change: Change, read: ReadContent) -> FileStat:
    """Lines added and removed (sizes for what is not text)."""
    before, after = _patchable(change.before), _patchable(change.after)
    old, new = _text(before, read), _text(after, read)
    sizes = (_size(change.before), _size(change.after))
    if old is None or new is None:
        return FileStat(0, 0, True, *sizes)
    if _same_bytes(before, after):
        return FileStat(0, 0, False, *sizes)
    added = removed = 0
    for tag, a1, a2, b1, b2 in Alignment(_split(old), _split(new)).get_opcodes():
        if tag != "equal":
            removed += a2 - a1
            added += b2 - b1
    return FileStat(added, removed, False, *sizes)


def describe(change: Change) -> str:
    """What happened to a path, in words: ``added directory``, ``mode 644 -> 755, times``."""
    before, after = change.before, change.after
    if before is None and after is not None:
        return f"added {Kind(after.kind).name.lower()}"
    if after is None and before is not None:
        return f"removed {Kind(before.kind).name.lower()}"
    assert before is not None
    assert after is not None
    words = []
    for how in sorted(change.how):
        if how == "kind":
            words.append(f"{Kind(before.kind).name.lower()} -> {Kind(after.kind).name.lower()}")
        elif how == "mode":
            words.append(f"mode {before.mode:o} -> {after.mode:o}")
        elif how == "owner":
            words.append(f"owner {before.uid}:{before.gid} -> {after.uid}:{after.gid}")
        else:
            words.append(how)
    return ", ".join(words)


def git_path(path: bytes) -> str:
    """A path as git writes it: in quotes with octal escapes if anything in it is unusual."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text and '"' not in text and "\\" not in text:
        return text
    shown = "".join(
        _ESCAPES.get(byte, chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in path
    )
    return f'"{shown}"'


def _patchable(entry: Entry | None) -> Entry | None:
    return entry if entry is not None and entry.kind in (Kind.FILE, Kind.SYMLINK) else None


def _one_file(
    old: str, new: str, before: Entry | None, after: Entry | None, read: ReadContent
) -> Iterator[str]:
    head = [f"diff --git {old} {new}"]
    if before is None and after is not None:
        head.append(f"new file mode {_mode(after)}")
    elif after is None and before is not None:
        head.append(f"deleted file mode {_mode(before)}")
    elif before is not None and after is not None and before.mode != after.mode:
        head += [f"old mode {_mode(before)}", f"new mode {_mode(after)}"]
    body = list(_body(old, new, before, after, read))
    if len(head) > 1 or body:
        yield from head
        yield from body


def _body(
    old: str, new: str, before: Entry | None, after: Entry | None, read: ReadContent
) -> Iterator[str]:
    if _same_bytes(before, after):
        return
    shown_old = old if before is not None else "/dev/null"
    shown_new = new if after is not None else "/dev/null"
    old_text, new_text = _text(before, read), _text(after, read)
    if old_text is None or new_text is None:
        yield f"Binary files {shown_old} and {shown_new} differ"
        return
    first = True
    for line in hunks(_split(old_text), _split(new_text)):
        if first:
            yield f"--- {shown_old}"
            yield f"+++ {shown_new}"
            first = False
        if line.endswith("\n"):
            yield line[:-1]
        elif line.startswith("@@"):
            yield line
        else:
            yield line
            yield "\\ No newline at end of file"


def _text(entry: Entry | None, read: ReadContent) -> str | None:
    """The text of a side; None where it is binary or too large."""
    if entry is None:
        return ""
    if entry.kind == Kind.SYMLINK:
        return entry.target.decode("utf-8", "surrogateescape")
    assert entry.content is not None
    if entry.content.size > TEXT_MAX_BYTES:
        return None
    data = read(entry.content)
    if b"\0" in data[:_SNIFFED_BYTES] or data.count(b"\n") > _TEXT_MAX_LINES:
        return None
    return data.decode("utf-8", "surrogateescape")


def _same_bytes(before: Entry | None, after: Entry | None) -> bool:
    if before is None or after is None:
        return False
    return before.content == after.content and before.target == after.target


def _split(text: str) -> list[str]:
    """Lines with their ends; only a newline ends one."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _mode(entry: Entry) -> str:
    bits = 0 if entry.kind == Kind.SYMLINK else entry.mode
    return f"{_TYPE_BITS[Kind(entry.kind)] | bits:06o}"


def _size(entry: Entry | None) -> int:
    return entry.content.size if entry is not None and entry.content is not None else 0
