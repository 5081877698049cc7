"""Operations on names: links, renames, directories, symlinks, fifos, and what is no state."""

from __future__ import annotations

import os
import shutil
import socket
import stat

from crabrt.testing.hostile import syscalls
from crabrt.testing.hostile.hand import (
    TREE_NAMES,
    Hand,
    NotApplicable,
    operation,
    times_kept,
    where_supported,
)

_TARGET_BYTES = 1_000  # XFS keeps no longer ones
_TARGETS = (b"nowhere", b"../..", b"/etc/passwd", b".", b"a/b/c", b"\xff\xfe", b"t" * 1000)


@operation("remove a file")
def remove_file(hand: Hand) -> str:
    """Gone."""
    path = hand.a_file()
    os.unlink(hand.at(path))
    return repr(path)


@operation("remove and make a file again")
def remove_and_make(hand: Hand) -> str:
    """The same bytes, often the same inode number, a new time."""
    path = hand.a_file()
    with open(hand.at(path), "rb") as file:
        data = file.read()
    os.unlink(hand.at(path))
    with open(hand.at(path), "xb") as file:
        file.write(data)
    return repr(path)


@operation("remove a file and make another in its place and time")
def remove_and_make_twin(hand: Hand) -> str:
    """Other bytes; size, time and perhaps the inode number as before."""
    path = hand.a_file(at_least=1)
    with times_kept(hand.at(path)) as info:
        os.unlink(hand.at(path))
        with open(hand.at(path), "xb") as file:
            file.write(hand.rng.randbytes(info.st_size))
            os.fchmod(file.fileno(), stat.S_IMODE(info.st_mode))
    return repr(path)


@operation("rename a file")
def rename_file(hand: Hand) -> str:
    """To a new name, perhaps in another directory."""
    path, new = hand.a_file(), hand.new_path()
    os.rename(hand.at(path), hand.at(new))
    return f"{path!r} to {new!r}"


@operation("rename a file over another")
def rename_over(hand: Hand) -> str:
    """The other is gone; two names of one inode stay as they are."""
    path, other = hand.a_file(), hand.a_file()
    os.rename(hand.at(path), hand.at(other))
    return f"{path!r} over {other!r}"


@operation("exchange two files")
def exchange_files(hand: Hand) -> str:
    """Atomically, by one call."""
    path, other = hand.a_file(), hand.a_file()
    with where_supported():
        syscalls.exchange(hand.at(path), hand.at(other))
    return f"{path!r} and {other!r}"


@operation("exchange a file and a directory")
def exchange_kinds(hand: Hand) -> str:
    """Both change their kind by one call."""
    path, other = hand.a_file(), hand.a_subdir()
    if path.startswith(other + b"/"):
        raise NotApplicable("the file lies in the directory")
    with where_supported():
        syscalls.exchange(hand.at(path), hand.at(other))
    return f"{path!r} and {other!r}"


@operation("link a file")
def link_file(hand: Hand) -> str:
    """One more name of an inode."""
    path, new = hand.a_file(), hand.new_path()
    with where_supported():
        os.link(hand.at(path), hand.at(new))
    return f"{path!r} as {new!r}"


@operation("write through another name")
def write_through_alias(hand: Hand) -> str:
    """Every name of the inode changes."""
    path = hand.pick([p for p in hand.paths(stat.S_IFREG) if os.stat(hand.at(p)).st_nlink > 1])
    with open(hand.at(path), "ab") as file:
        file.write(b"seen under every name\n")
    return repr(path)


@operation("break a hard link")
def break_link(hand: Hand) -> str:
    """A copy with the same bytes and times takes the place of one name."""
    path = hand.pick([p for p in hand.paths(stat.S_IFREG) if os.stat(hand.at(p)).st_nlink > 1])
    new = os.path.join(os.path.dirname(hand.at(path)), b".tmp-%d" % hand.turn)
    shutil.copy2(hand.at(path), new)
    os.replace(new, hand.at(path))
    return repr(path)


@operation("make a directory")
def make_dir(hand: Hand) -> str:
    """An empty one."""
    path = hand.new_path()
    os.mkdir(hand.at(path))
    return repr(path)


@operation("make a directory of many files")
def make_many(hand: Hand) -> str:
    """Enough to have its node split."""
    path = hand.new_path()
    if len(hand.listing()) > TREE_NAMES - 80 or hand.room() < 10_000:
        raise NotApplicable("the tree has names enough")
    os.mkdir(hand.at(path))
    for number in range(60):
        with open(os.path.join(hand.at(path), b"%03d.txt" % number), "xb") as file:
            file.write(b"file %d\n" % number)
    return repr(path)


@operation("remove a directory tree")
def remove_tree(hand: Hand) -> str:
    """With all that is in it."""
    path = hand.a_subdir()
    shutil.rmtree(hand.at(path))
    return repr(path)


@operation("rename a directory")
def rename_dir(hand: Hand) -> str:
    """All paths below change, no inode does."""
    path, new = hand.a_subdir(), hand.new_path()
    if new.startswith(path + b"/"):
        raise NotApplicable("into itself")
    os.rename(hand.at(path), hand.at(new))
    return f"{path!r} to {new!r}"


@operation("replace a directory by a file")
def dir_to_file(hand: Hand) -> str:
    """The same name, another kind."""
    path = hand.a_subdir()
    shutil.rmtree(hand.at(path))
    with open(hand.at(path), "xb") as file:
        file.write(b"was a directory\n")
    return repr(path)


@operation("replace a file by a directory")
def file_to_dir(hand: Hand) -> str:
    """The same name, another kind, with something in it."""
    path = hand.a_file()
    os.unlink(hand.at(path))
    os.mkdir(hand.at(path))
    with open(os.path.join(hand.at(path), b"inside"), "xb") as file:
        file.write(b"was a file\n")
    return repr(path)


@operation("replace a directory by a symlink to it")
def dir_to_link(hand: Hand) -> str:
    """Every old path still leads to the old bytes."""
    path, new = hand.a_subdir(), hand.new_path()
    if new.startswith(path + b"/"):
        raise NotApplicable("into itself")
    target = os.path.relpath(hand.at(new), os.path.dirname(hand.at(path)))
    if len(target) > _TARGET_BYTES:
        raise NotApplicable("the target is too long")
    os.rename(hand.at(path), hand.at(new))
    os.symlink(target, hand.at(path))
    return f"{path!r} now at {new!r}"


@operation("replace a file by a symlink")
def file_to_link(hand: Hand) -> str:
    """The same name, another kind."""
    path = hand.a_file()
    os.unlink(hand.at(path))
    os.symlink(hand.rng.choice(_TARGETS), hand.at(path))
    return repr(path)


@operation("make a symlink")
def make_link(hand: Hand) -> str:
    """Dangling, absolute, not text, to itself, and long ones among them."""
    path, target = hand.new_path(), hand.rng.choice(_TARGETS)
    os.symlink(target, hand.at(path))
    return f"{path!r} to {target[:40]!r}"


@operation("swap a symlink")
def swap_link(hand: Hand) -> str:
    """Atomically, to another target of the same length, with the old time."""
    path = hand.pick(hand.paths(stat.S_IFLNK))
    target = os.readlink(hand.at(path))
    new = os.path.join(os.path.dirname(hand.at(path)), b".tmp-%d" % hand.turn)
    os.symlink(bytes([target[0] ^ 1]) + target[1:], new)
    info = os.lstat(hand.at(path))
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    os.replace(new, hand.at(path))
    return repr(path)


@operation("link a symlink")
def link_link(hand: Hand) -> str:
    """A hard link of the link itself."""
    path, new = hand.pick(hand.paths(stat.S_IFLNK)), hand.new_path()
    with where_supported():
        os.link(hand.at(path), hand.at(new), follow_symlinks=False)
    return f"{path!r} as {new!r}"


@operation("remove a symlink")
def remove_link(hand: Hand) -> str:
    """Gone; what it pointed at stays."""
    path = hand.pick(hand.paths(stat.S_IFLNK))
    os.unlink(hand.at(path))
    return repr(path)


@operation("make a fifo")
def make_fifo(hand: Hand) -> str:
    """Whoever opens it without care hangs."""
    path = hand.new_path()
    os.mkfifo(hand.at(path), 0o600)
    return repr(path)


@operation("remove a fifo")
def remove_fifo(hand: Hand) -> str:
    """Gone."""
    path = hand.pick(hand.paths(stat.S_IFIFO))
    os.unlink(hand.at(path))
    return repr(path)


@operation("make a socket", undone=True)
def make_socket(hand: Hand) -> str:
    """Which is no state: sockets are reported, not captured."""
    path = hand.new_path(b"s-%d" % hand.turn)
    # Bound from its own directory: the path of a socket may have 107 bytes only.
    directory = os.open(os.path.dirname(hand.at(path)), os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as endpoint:
            endpoint.bind(f"/proc/self/fd/{directory}/s-{hand.turn}")
    finally:
        os.close(directory)
    return repr(path)


@operation("make a device", undone=True)
def make_device(hand: Hand) -> str:
    """Which is no state either; takes root."""
    if os.geteuid() != 0:
        raise NotApplicable("it takes root")
    path = hand.new_path()
    with where_supported():
        os.mknod(hand.at(path), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return repr(path)


def _outside(hand: Hand) -> bytes:
    if hand.outside is None:
        raise NotApplicable("there is nothing outside")
    return os.path.join(hand.outside, b"%d.%d" % (hand.turn, hand.made))


@operation("move a file in from outside")
def move_in(hand: Hand) -> str:
    """It arrives with the times it has always had."""
    path, there = hand.new_path(), _outside(hand)
    data = hand.some_bytes()
    with open(there, "wb") as file:
        file.write(data)
    os.utime(there, ns=(1_000_000_000, 1_000_000_000))
    os.rename(there, hand.at(path))
    return repr(path)


@operation("write a file through a link outside")
def write_from_outside(hand: Hand) -> str:
    """Nothing in the tree's directories is touched, and a file in it changes."""
    path, there = hand.a_file(), _outside(hand)
    with where_supported():
        os.link(hand.at(path), there)
    with open(there, "ab") as file:
        file.write(b"from outside\n")
    os.unlink(there)
    return repr(path)


@operation("move a file out and back", undone=True)
def move_out_and_back(hand: Hand) -> str:
    """As it was."""
    path, there = hand.a_file(), _outside(hand)
    os.rename(hand.at(path), there)
    os.rename(there, hand.at(path))
    return repr(path)
