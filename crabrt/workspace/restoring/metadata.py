"""Mode, owner, times and extended attributes: compared with an entry, and set to exactly it.

Order matters: a change of owner clears setuid bits and file capabilities, an ACL rewrites the group
bits; so it is owner, attributes, mode, times. A setuid or setgid bit is never set on a file whose
owner could not be restored: it would lend somebody else's rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from crabrt.core.trees import Entry, Kind
from crabrt.workspace.restoring.handles import describe

_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

_UNSEEN = frozenset({errno.ENODATA, errno.EACCES, errno.EPERM})
"""Gone since it was listed, or in a namespace closed to us: a capture leaves these out, too."""

_ALIASES = frozenset({b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"})
"""Other names under which XFS shows root the ACLs; they come and go with those."""

METADATA = frozenset({"mode", "owner", "times", "xattrs"})
"""The differences that are not in the bytes."""

_TIMED = frozenset({Kind.FILE, Kind.SYMLINK})


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
}


def kind_of(mode: int) -> Kind | None:
    """The kind of an inode by its ``st_mode``; None for what is never captured."""
    return _KINDS.get(stat.S_IFMT(mode))


Place = int | str
"""An inode: an open descriptor, or the name `handles.by_descriptor` gives to an ``O_PATH`` one."""


def read_xattrs(place: Place) -> dict[bytes, bytes]:
    """All extended attributes of an inode."""
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    found: dict[bytes, bytes] = {}
    for name in names:
        if os.fsencode(name) in _ALIASES:
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(place, name)
        except OSError as error:
            if error.errno not in _UNSEEN:
                raise
    return found


def wanted_xattrs(entry: Entry) -> dict[bytes, bytes]:
    """The extended attributes that `read_xattrs` shall find."""
    return {name: value for name, value in entry.xattrs if name not in _ALIASES}


def differences(entry: Entry, found: os.stat_result) -> list[str]:
    """Which facts of ``stat`` are not as in `entry` (the kind is known to be the same)."""
    wrong = []
    if entry.kind != Kind.SYMLINK and stat.S_IMODE(found.st_mode) != entry.mode:
        wrong.append("mode")
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        wrong.append("owner")
    if entry.kind in _TIMED and found.st_mtime_ns != entry.mtime_ns:
        wrong.append("times")
    if entry.content is not None and found.st_size != entry.content.size:
        wrong.append("size")
    return wrong


def set_metadata(place: Place, entry: Entry) -> list[str]:
    """Give an inode the metadata of `entry`.

    Returns:
        What could not be set, one phrase each; everything else was.

    Raises:
        OSError: the inode cannot be changed at all.
    """
    now = os.stat(place)
    missing: list[str] = []
    given = (now.st_uid, now.st_gid) != (entry.uid, entry.gid)
    if given:
        missing = _set_owner(place, entry, now)
    mode = entry.mode & ~0o6000 if missing else entry.mode
    touched, unset = _set_xattrs(place, entry)
    missing += unset
    if entry.kind != Kind.SYMLINK:
        if given or touched or stat.S_IMODE(now.st_mode) != mode:
            os.chmod(place, mode)
        if mode != entry.mode:
            missing.append("setuid and setgid bits, as the owner is another")
    if entry.kind in _TIMED and now.st_mtime_ns != entry.mtime_ns:
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
    return missing


def _set_owner(place: Place, entry: Entry, now: os.stat_result) -> list[str]:
    try:
        os.chown(place, entry.uid, entry.gid)
    except PermissionError:
        if now.st_gid != entry.gid:
            with contextlib.suppress(PermissionError):  # a group we belong to may still be given
                os.chown(place, -1, entry.gid)
        after = os.stat(place)
        return [f"owner {entry.uid}:{entry.gid}, it is {after.st_uid}:{after.st_gid}"]
    return []


def _set_xattrs(place: Place, entry: Entry) -> tuple[bool, list[str]]:
    """Whether any had to be changed, and which could not be."""
    wanted = wanted_xattrs(entry)
    found = read_xattrs(place)
    missing: list[str] = []
    if found == wanted:
        return False, missing
    for name in [*(n for n in found if n not in wanted), *wanted]:
        if found.get(name) == wanted.get(name):
            continue
        try:
            if name in wanted:
                os.setxattr(place, name, wanted[name])
            else:
                os.removexattr(place, name)
        except OSError as error:
            missing.append(f"attribute {os.fsdecode(name)}: {describe(error)}")
    return True, missing
