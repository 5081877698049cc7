"""The oracle: a digest of everything that is state in a directory, by code that shares nothing.

It is a plain walk and a hash, independent of the scanner it judges, so that one mistake cannot hide
in both. State is names, types, bytes, modes, owners, link targets, extended attributes (ACLs are
some of them), hard-link groups, and the modification times of regular files and symlinks. Directory
times, access and change times, inode numbers and hole layout are not; sockets and devices are left
out.

The walk is descriptor-relative, holds one directory at a time, and follows no link: trees deeper
than PATH_MAX and names that are not text are ordinary to it. The directory must be quiet meanwhile:
what changes under the walk raises.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

_READ_BYTES = 1 << 20
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo"}


class Unsteady(Exception):
    """The directory changed while the oracle walked it, so its answer would mean nothing."""


@dataclass(frozen=True)
class Fact:
    """All that is state about one path.

    Attributes:
        kind: ``file``, ``dir``, ``link`` or ``fifo``.
        mode: permission bits; 0 for symlinks, whose mode Linux does not keep.
        uid, gid: owner.
        mtime_ns: of files and symlinks; 0 for the rest, and where times were not asked for.
        size: of files, in bytes.
        content: BLAKE2b-256 of a file's bytes, in hex; else empty.
        target: of symlinks.
        xattrs: (name, value) pairs in name order.
        linked_to: the first path of its hard-link group, empty when no other name in the tree
            shares the inode.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int = 0
    size: int = 0
    content: str = ""
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    linked_to: bytes = b""


Manifest = Mapping[bytes, Fact]
"""Path (relative, raw bytes; the directory itself is ``b""``) to what is state about it."""


def digest(path: str | bytes | os.PathLike[str], exclude: Iterable[str | bytes] = ()) -> str:
    """The state of the directory at `path`, as 64 hex digits. See `manifest` for the arguments."""
    return digest_of(manifest(path, exclude))


def digest_of(facts: Manifest) -> str:
    """The digest of a manifest: equal exactly when the manifests are."""
    hasher = hashlib.blake2b(digest_size=32)
    for path in sorted(facts):
        fact = facts[path]
        numbers = f"{fact.kind} {fact.mode} {fact.uid} {fact.gid} {fact.mtime_ns} {fact.size}"
        parts = [path, numbers.encode(), fact.content.encode(), fact.target, fact.linked_to]
        for name, value in fact.xattrs:
            parts += [name, value]
        hasher.update(len(parts).to_bytes(4, "big"))
        for part in parts:
            hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.hexdigest()


def manifest(
    path: str | bytes | os.PathLike[str],
    exclude: Iterable[str | bytes] = (),
    *,
    times: bool = True,
) -> dict[bytes, Fact]:
    """Everything that is state in the directory at `path`.

    Args:
        path: the directory (links in its own path are followed).
        exclude: relative paths that are left out with all that is below them; no patterns.
        times: False leaves modification times out of the comparison.

    Raises:
        Unsteady: something changed during the walk.
        OSError: something cannot be read; the oracle does not guess.
    """
    left_out = {os.fsencode(item).strip(b"/") for item in exclude}
    facts: dict[bytes, Fact] = {}
    names_of: dict[tuple[int, int], list[bytes]] = {}
    for found, fact, inode in _walk(os.fsencode(path), left_out):
        facts[found] = fact if times else replace(fact, mtime_ns=0)
        if inode is not None:
            names_of.setdefault(inode, []).append(found)
    for group in names_of.values():
        if len(group) > 1:
            first = min(group)
            for name in group:
                facts[name] = replace(facts[name], linked_to=first)
    return facts


def describe_difference(before: Manifest, after: Manifest, limit: int = 40) -> str:
    """Readable text of what differs, a line a path; empty when nothing does.

    ``-`` only in `before`, ``+`` only in `after`, ``~`` in both but different (with the fields).
    """
    lines: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        shown = repr(path)[1:] if len(path) < 200 else f"{path[:190]!r}... ({len(path)} bytes)"
        if new is None:
            lines.append(f"- {shown}")
        elif old is None:
            lines.append(f"+ {shown} ({new.kind}, {new.size} bytes)")
        else:
            lines.append(f"~ {shown}: {', '.join(_changed_fields(old, new))}")
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join(lines[:limit] + more)


def _changed_fields(old: Fact, new: Fact) -> Iterator[str]:
    for field in fields(Fact):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was == now:
            continue
        if field.name == "mode":
            was, now = oct(was), oct(now)
        yield f"{field.name} {was!s:.80} -> {now!s:.80}"


@dataclass
class _Level:
    """A directory on the way down: the names still to visit, and who it is, to know it going up."""

    path: bytes
    names: list[bytes]
    inode: tuple[int, int]


def _walk(top: bytes, left_out: set[bytes]) -> Iterator[tuple[bytes, Fact, tuple[int, int] | None]]:
    """Every path with its fact and, unless it is a directory, its inode."""
    handle = os.open(top, _OPEN_DIR & ~os.O_NOFOLLOW)
    try:
        info = os.fstat(handle)
        yield b"", _fact_of_dir(handle, info), None
        levels = [_Level(b"", _names(handle), (info.st_dev, info.st_ino))]
        while levels:
            level = levels[-1]
            if not level.names:
                levels.pop()
                if levels:
                    handle = _climb(handle, levels[-1])
                continue
            name = level.names.pop()
            path = level.path + b"/" + name if level.path else name
            if path in left_out:
                continue
            info = os.stat(name, dir_fd=handle, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(info.st_mode))
            inode = (info.st_dev, info.st_ino)
            if kind is None:
                continue
            if kind != "dir":
                yield path, _fact_of_leaf(handle, name, kind, info), inode
                continue
            below = os.open(name, _OPEN_DIR, dir_fd=handle)
            os.close(handle)
            handle = below
            _steady(info, os.fstat(handle), path)
            yield path, _fact_of_dir(handle, info), None
            # A mount point is a directory of this tree; what is mounted on it is not.
            crossed = info.st_dev != levels[0].inode[0]
            levels.append(_Level(path, [] if crossed else _names(handle), inode))
    finally:
        os.close(handle)


def _names(handle: int) -> list[bytes]:
    return sorted((os.fsencode(name) for name in os.listdir(handle)), reverse=True)


def _climb(handle: int, parent: _Level) -> int:
    above = os.open(b"..", _OPEN_DIR, dir_fd=handle)
    os.close(handle)
    info = os.fstat(above)
    if (info.st_dev, info.st_ino) != parent.inode:
        os.close(above)
        raise Unsteady(f"{parent.path!r} was moved during the walk")
    return above


def _fact_of_dir(handle: int, info: os.stat_result) -> Fact:
    xattrs = _xattrs(f"/proc/self/fd/{handle}/.".encode())
    return Fact("dir", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, xattrs=xattrs)


def _fact_of_leaf(handle: int, name: bytes, kind: str, info: os.stat_result) -> Fact:
    fact = Fact(
        kind,
        0 if kind == "link" else stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        mtime_ns=0 if kind == "fifo" else info.st_mtime_ns,
        # The xattr calls take no directory descriptor; /proc lends one to them.
        xattrs=_xattrs(f"/proc/self/fd/{handle}/".encode() + name),
    )
    if kind == "link":
        return replace(fact, target=os.readlink(name, dir_fd=handle))
    if kind == "file":
        return replace(fact, size=info.st_size, content=_hash_file(handle, name, info))
    return fact


def _xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        # XFS shows root the ACLs, which are listed as such, a second time under these names.
        if not name.startswith(b"trusted.SGI_ACL_")
    )


def _hash_file(handle: int, name: bytes, info: os.stat_result) -> str:
    hasher = hashlib.blake2b(digest_size=32)
    file = os.open(name, _OPEN_FILE, dir_fd=handle)
    try:
        _steady(info, os.fstat(file), name)
        while block := os.read(file, _READ_BYTES):
            hasher.update(block)
        _steady(info, os.fstat(file), name)
    finally:
        os.close(file)
    return hasher.hexdigest()


def _steady(seen: os.stat_result, now: os.stat_result, path: bytes) -> None:
    if _version(seen) != _version(now):
        raise Unsteady(f"{path!r} changed during the walk")


def _version(info: os.stat_result) -> tuple[int, ...]:
    who = (info.st_dev, info.st_ino, info.st_mode, info.st_uid, info.st_gid)
    return who if stat.S_ISDIR(info.st_mode) else (*who, info.st_size, info.st_mtime_ns)
