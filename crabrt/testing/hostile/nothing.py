"""Operations whose net change is nothing: reads, and what is undone before the turn ends."""

from __future__ import annotations

import os
import shutil
import stat

from crabrt.testing.hostile.hand import Hand, operation, times_kept, where_supported


@operation("read everything", undone=True)
def read_all(hand: Hand) -> str:
    """Access times move, and nothing else."""
    files = hand.paths(stat.S_IFREG)
    for path in files:
        with open(hand.at(path), "rb") as file:
            file.read()
    return f"{len(files)} files"


@operation("make a file and remove it", undone=True)
def make_and_remove(hand: Hand) -> str:
    """Only the directory's time moves."""
    path = hand.new_path()
    with open(hand.at(path), "xb") as file:
        file.write(b"soon gone")
    os.unlink(hand.at(path))
    return repr(path)


@operation("make a directory tree and remove it", undone=True)
def make_and_remove_tree(hand: Hand) -> str:
    """As a build into a scratch directory does."""
    path = hand.new_path()
    os.makedirs(os.path.join(hand.at(path), b"a", b"b"))
    with open(os.path.join(hand.at(path), b"a", b"x"), "xb") as file:
        file.write(b"soon gone")
    shutil.rmtree(hand.at(path))
    return repr(path)


@operation("change bytes and change them back", undone=True)
def change_back(hand: Hand) -> str:
    """With the time set back too: ctime alone has moved."""
    path = hand.a_plain_file(at_least=1)
    with times_kept(hand.at(path)), open(hand.at(path), "r+b") as file:
        was = os.pread(file.fileno(), 10, 0)
        os.pwrite(file.fileno(), bytes(len(was)), 0)
        os.pwrite(file.fileno(), was, 0)
    return repr(path)


@operation("cut a file short and restore it", undone=True)
def cut_and_restore(hand: Hand) -> str:
    """Truncated to nothing, then written as it was, time and all."""
    path = hand.a_plain_file()
    with times_kept(hand.at(path)), open(hand.at(path), "r+b") as file:
        data = file.read()
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), data, 0)
    return repr(path)


@operation("rename a file away and back", undone=True)
def rename_and_back(hand: Hand) -> str:
    """Its ctime moves."""
    path = hand.a_file()
    new = hand.new_path()
    os.rename(hand.at(path), hand.at(new))
    os.rename(hand.at(new), hand.at(path))
    return repr(path)


@operation("rename a directory away and back", undone=True)
def rename_dir_and_back(hand: Hand) -> str:
    """With all that is in it."""
    path = hand.a_subdir()
    away = os.path.join(os.path.dirname(hand.at(path)), b".away-%d" % hand.turn)
    os.rename(hand.at(path), away)
    os.rename(away, hand.at(path))
    return repr(path)


@operation("replace a file by an equal one", undone=True)
def replace_by_equal(hand: Hand) -> str:
    """Another inode with the same bytes, mode, owner, attributes and time."""
    path = hand.pick([p for p in hand.paths(stat.S_IFREG) if os.stat(hand.at(p)).st_nlink == 1])
    at = hand.at(path)
    info = os.stat(at)
    new = os.path.join(os.path.dirname(at), b".tmp-%d" % hand.turn)
    shutil.copyfile(at, new)
    os.chown(new, info.st_uid, info.st_gid)
    # A default ACL of the directory gave the copy attributes that the original need not have.
    for name in _xattrs(new):
        os.removexattr(new, name)
    os.chmod(new, stat.S_IMODE(info.st_mode))
    for name in _xattrs(at):
        os.setxattr(new, name, os.getxattr(at, name))
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(new, at)
    return repr(path)


def _xattrs(at: bytes) -> list[str]:
    # XFS shows root its ACLs a second time under these names.
    return [name for name in os.listxattr(at) if not name.startswith("trusted.SGI_ACL_")]


@operation("change a mode and change it back", undone=True)
def chmod_and_back(hand: Hand) -> str:
    """Only ctime moves."""
    path = hand.a_file()
    mode = stat.S_IMODE(os.stat(hand.at(path)).st_mode)
    os.chmod(hand.at(path), 0o600)
    os.chmod(hand.at(path), mode)
    return repr(path)


@operation("set an attribute and remove it", undone=True)
def xattr_and_back(hand: Hand) -> str:
    """Only ctime moves."""
    path = hand.a_file()
    with where_supported():
        os.setxattr(hand.at(path), b"user.passing", b"1")
    os.removexattr(hand.at(path), b"user.passing")
    return repr(path)


@operation("link a file and unlink it", undone=True)
def link_and_unlink(hand: Hand) -> str:
    """The link count goes up and down."""
    path = hand.a_file()
    new = hand.new_path()
    with where_supported():
        os.link(hand.at(path), hand.at(new))
    os.unlink(hand.at(new))
    return repr(path)


@operation("set a directory's time", undone=True)
def utime_dir(hand: Hand) -> str:
    """Which is no state."""
    path = hand.a_dir()
    os.utime(hand.at(path), ns=(1, hand.rng.randrange(1 << 60)))
    return repr(path)


@operation("swap a symlink and swap it back", undone=True)
def swap_link_and_back(hand: Hand) -> str:
    """Another inode, but target and time as before."""
    path = hand.pick(
        [
            p
            for p in hand.paths(stat.S_IFLNK)
            if os.lstat(hand.at(p)).st_nlink == 1
            and not os.listxattr(hand.at(p), follow_symlinks=False)
        ]
    )
    at = hand.at(path)
    info, target = os.lstat(at), os.readlink(at)
    os.unlink(at)
    os.symlink(b"elsewhere", at)
    os.unlink(at)
    os.symlink(target, at)
    os.chown(at, info.st_uid, info.st_gid, follow_symlinks=False)
    os.utime(at, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    return repr(path)
