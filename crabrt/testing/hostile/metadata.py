"""Operations on modes, owners, times and extended attributes."""

from __future__ import annotations

import os
import stat
import struct

from crabrt.testing.hostile.hand import Hand, NotApplicable, operation, where_supported

_MODES = (0o600, 0o644, 0o640, 0o755, 0o700, 0o4755, 0o2750, 0o1644, 0o000, 0o777)
_DIR_MODES = (0o700, 0o755, 0o750, 0o2775, 0o1777)
_TIMES_NS = (
    0,
    1,
    -1_000_000_001,
    999_999_999,
    1_600_000_000_123_456_789,
    4_102_444_800_000_000_007,
)
_XATTRS = (b"user.note", b"user.a.b", b"user.\xff", b"user.empty")
_ACL_VERSION, _ANYBODY = 2, 0xFFFFFFFF
_ACL_USER_OBJ, _ACL_USER, _ACL_GROUP_OBJ, _ACL_MASK, _ACL_OTHER = 1, 2, 4, 16, 32


@operation("change a file's mode")
def chmod_file(hand: Hand) -> str:
    """Setuid, setgid, sticky and no permission at all among them."""
    path = hand.a_file()
    mode = hand.rng.choice(_MODES)
    if mode == 0 and os.geteuid() != 0:
        raise NotApplicable("nobody but root could go on with it")
    os.chmod(hand.at(path), mode)
    return f"{path!r} to {mode:o}"


@operation("change a directory's mode")
def chmod_dir(hand: Hand) -> str:
    """Of the tree's top too."""
    path = hand.a_dir()
    mode = hand.rng.choice(_DIR_MODES)
    os.chmod(hand.at(path), mode)
    return f"{path!r} to {mode:o}"


@operation("change an owner")
def chown(hand: Hand) -> str:
    """Of anything, links included; takes root. A file's setuid bits go with it."""
    if os.geteuid() != 0:
        raise NotApplicable("it takes root")
    path = hand.pick([path for path, _ in hand.listing() if not hand.is_busy(path)])
    uid, gid = hand.rng.choice((0, 1, 1000, 65534)), hand.rng.choice((0, 1, 1000))
    os.chown(hand.at(path), uid, gid, follow_symlinks=False)
    return f"{path!r} to {uid}:{gid}"


@operation("change a group")
def chgrp(hand: Hand) -> str:
    """To one of the user's own, which is all that is allowed without root."""
    path = hand.a_file()
    own = [*sorted(os.getgroups()), os.getegid()]
    gid = hand.rng.choice(own if os.geteuid() != 0 else [0, 1, 1000])
    os.chown(hand.at(path), -1, gid)
    return f"{path!r} to {gid}"


@operation("set a file's time")
def utime_file(hand: Hand) -> str:
    """Before the epoch, far ahead, with odd nanoseconds."""
    path = hand.a_file()
    when = hand.rng.choice(_TIMES_NS) + hand.rng.randrange(1000)
    os.utime(hand.at(path), ns=(when, when))
    return f"{path!r} to {when}"


@operation("set a symlink's time")
def utime_link(hand: Hand) -> str:
    """The link's own, not its target's."""
    path = hand.pick(hand.paths(stat.S_IFLNK))
    when = hand.rng.choice(_TIMES_NS)
    os.utime(hand.at(path), ns=(when, when), follow_symlinks=False)
    return f"{path!r} to {when}"


@operation("set an extended attribute", weight=2)
def set_xattr(hand: Hand) -> str:
    """Of a file or directory; empty values and names that are not text among them."""
    path = hand.pick([*hand.paths(stat.S_IFREG), *hand.paths(stat.S_IFDIR), b""])
    name = hand.rng.choice(_XATTRS)
    value = b"" if name == b"user.empty" else hand.rng.randbytes(hand.rng.randint(1, 100))
    with where_supported():
        os.setxattr(hand.at(path), name, value)
    return f"{name!r} of {path!r}"


@operation("remove an extended attribute")
def remove_xattr(hand: Hand) -> str:
    """One that is there."""
    path = hand.pick(
        [
            path
            for path in [*hand.paths(stat.S_IFREG), *hand.paths(stat.S_IFDIR), b""]
            if _user_xattrs(hand, path)
        ]
    )
    name = _user_xattrs(hand, path)[0]
    os.removexattr(hand.at(path), name)
    return f"{name!r} of {path!r}"


def _user_xattrs(hand: Hand, path: bytes) -> list[str]:
    return sorted(name for name in os.listxattr(hand.at(path)) if name.startswith("user."))


def _acl(user: int, bits: int, owner: int = 6) -> bytes:
    entries = (
        (_ACL_USER_OBJ, owner, _ANYBODY),
        (_ACL_USER, bits, user),
        (_ACL_GROUP_OBJ, 4, _ANYBODY),
        (_ACL_MASK, 6, _ANYBODY),
        (_ACL_OTHER, 4, _ANYBODY),
    )
    packed = b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in entries)
    return struct.pack("<I", _ACL_VERSION) + packed


@operation("give a file an ACL", weight=2)
def set_acl(hand: Hand) -> str:
    """A named user; the group bits of the mode become the mask."""
    path = hand.a_file()
    with where_supported():
        os.setxattr(hand.at(path), "system.posix_acl_access", _acl(1000, hand.rng.choice((4, 6))))
    return repr(path)


@operation("give a directory a default ACL")
def set_default_acl(hand: Hand) -> str:
    """What is made in it later inherits it; directories stay open to their owner."""
    path = hand.a_subdir()
    with where_supported():
        os.setxattr(hand.at(path), "system.posix_acl_default", _acl(1001, 4, owner=7))
    return repr(path)


@operation("take a file's ACL away")
def remove_acl(hand: Hand) -> str:
    """Back to plain modes."""
    path = hand.pick(
        [
            path
            for path in hand.paths(stat.S_IFREG)
            if "system.posix_acl_access" in os.listxattr(hand.at(path))
        ]
    )
    os.removexattr(hand.at(path), "system.posix_acl_access")
    return repr(path)


@operation("give a file capabilities")
def set_capability(hand: Hand) -> str:
    """``security.capability``: kept by the kernel until the next write or chown; takes root."""
    if os.geteuid() != 0:
        raise NotApplicable("it takes root")
    path = hand.a_file()
    # VFS_CAP_REVISION_2 with the effective bit, permitting CAP_NET_BIND_SERVICE.
    with where_supported():
        os.setxattr(
            hand.at(path),
            "security.capability",
            struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0),
        )
    return repr(path)
