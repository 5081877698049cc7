"""What a process tree holds whose other end is elsewhere: what an image cannot bring back whole.

Asked before a dump, so that a person learns it, and so that a restore can be given something in its
place. A snapshot: a tree that runs may open more the moment after.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from crabrt.process import table
from crabrt.process.criu.unixpeers import unix_peers
from crabrt.workspace.procfs import read

_ESTABLISHED: Final = b"01"
_STREAMS: Final = frozenset({b"0001", b"0005"})  # SOCK_STREAM, SOCK_SEQPACKET
_MAPPED: Final = b"0000000000000000FFFF0000"
_MEMORY, _TTY, _TTYAUX = 1, 4, 5  # majors of linux/major.h
_PTYS: Final = range(136, 144)
_TUN: Final = (10, 200)
_SPECIAL: Final = ("[perf", "[userfaultfd", "[bpf", "[kvm", "[fscontext", "[landlock")
"""Descriptors of kernel objects that CRIU has no image for."""


class Leads(StrEnum):
    """What kind of thing leads out of a tree."""

    PIPE = "pipe"
    UNIX = "unix"
    TCP = "tcp"
    TTY = "tty"
    IO_URING = "io-uring"
    DEVICE = "device"


LOST: Final[Mapping[Leads, str]] = MappingProxyType(
    {
        Leads.PIPE: "it reads from a pipe whose other end is not its own",
        Leads.UNIX: "a Unix socket connects it with another program",
        Leads.TCP: "a connection leads to another program",
        Leads.TTY: "it has a terminal",
    }
)
"""What of a tree does not come back, for people; as checkpoints have it."""


@dataclass(frozen=True)
class Outside:
    """A descriptor that leads out of a tree.

    Attributes:
        pid, fd: who holds it, and under which number.
        leads: what it is.
        resource: as ``/proc/PID/fd`` names it (``pipe:[123]``): what `restore` may be given
            another descriptor for, in its `inherit`.
        imageable: False: as long as it is open, no image can be taken.
        writes: for a pipe: the tree writes into it (else it reads); for anything else True.
    """

    pid: int
    fd: int
    leads: Leads
    resource: str
    imageable: bool
    writes: bool = True


class _Held(NamedTuple):
    pid: int
    fd: int
    link: str


def outside(root_pid: int) -> list[Outside]:
    """What the tree under `root_pid` holds of the outside. Who ends meanwhile holds nothing.

    Raises:
        OSError: the processes cannot be listed, or the kernel tells nothing of Unix sockets.
    """
    pids = [root_pid, *(process.pid for process in table.descendants(root_pid))]
    held = [one for pid in pids for one in _held(pid)]
    pipes = [one for one in held if one.link.startswith("pipe:[")]
    sockets = [one for one in held if one.link.startswith("socket:[")]
    others = [one for one in held if one.link.startswith(("/dev/", "anon_inode:"))]
    return [*_pipes(pipes), *_sockets(root_pid, sockets), *_others(others)]


def _held(pid: int) -> Iterator[_Held]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield _Held(pid, int(name), os.readlink(f"/proc/{pid}/fd/{name}"))


def _info(held: _Held, field: bytes) -> bytes | None:
    """A field of ``fdinfo`` (proc_pid_fdinfo(5)); None if it is closed by now, or has none."""
    with contextlib.suppress(OSError):
        for line in read(b"/proc/%d/fdinfo/%d" % (held.pid, held.fd)).splitlines():
            name, _, value = line.partition(b":")
            if name == field:
                return value.strip()
    return None


def _pipes(held: list[_Held]) -> Iterator[Outside]:
    """Pipes of which the tree has one end only; not those that nobody can write into any more."""
    modes: dict[str, set[int]] = defaultdict(set)
    ends = []
    for one in held:
        flags = _info(one, b"flags")
        if flags is not None:
            mode = int(flags, 8) & os.O_ACCMODE
            modes[one.link].add(mode)
            ends.append((one, mode))
    for one, mode in ends:
        if len(modes[one.link]) == 1 and mode != os.O_RDWR:
            writes = mode == os.O_WRONLY
            if not writes and _is_at_its_end(one):
                continue
            yield Outside(one.pid, one.fd, Leads.PIPE, one.link, imageable=True, writes=writes)


def _is_at_its_end(held: _Held) -> bool:
    """Whether a pipe that is read from has no other end at all: what is in it, its image has."""
    try:
        fd = os.open(f"/proc/{held.pid}/fd/{held.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # closed by now, or not ours to look at
        return False
    try:
        poll = select.poll()
        poll.register(fd, 0)
        return any(what & select.POLLHUP for _, what in poll.poll(0))
    finally:
        os.close(fd)


def _inode(held: _Held) -> int:
    return int(held.link.partition("[")[2].rstrip("]"))


def _sockets(root_pid: int, held: list[_Held]) -> Iterator[Outside]:
    if not held:
        return
    inodes = {_inode(one) for one in held}
    streams = _unix_streams(root_pid)
    peers = unix_peers() if inodes & streams else {}
    away = _tcp_away(root_pid, inodes)
    for one in held:
        inode = _inode(one)
        if inode in streams and inode in peers and peers[inode] not in inodes:
            yield Outside(one.pid, one.fd, Leads.UNIX, one.link, imageable=False)
        elif inode in away:
            yield Outside(one.pid, one.fd, Leads.TCP, one.link, imageable=True)


def _table(pid: int, name: str) -> Iterator[list[bytes]]:
    with contextlib.suppress(OSError):
        for line in read(b"/proc/%d/net/%s" % (pid, name.encode())).splitlines()[1:]:
            yield line.split()


def _unix_streams(pid: int) -> set[int]:
    """Unix sockets that are connected streams, of the tree's network namespace."""
    found = set()
    for words in _table(pid, "unix"):
        with contextlib.suppress(ValueError, IndexError):
            if words[4] in _STREAMS and words[5] == b"03":  # SS_CONNECTED
                found.add(int(words[6]))
    return found


def _tcp_away(pid: int, inodes: set[int]) -> set[int]:
    """Of `inodes`, the connected TCP sockets whose other end is none of `inodes`."""
    ends: dict[int, tuple[bytes, bytes]] = {}
    for name in ("tcp", "tcp6"):
        for words in _table(pid, name):
            with contextlib.suppress(ValueError, IndexError):
                if words[3] == _ESTABLISHED and int(words[9]) in inodes:
                    local, remote = (word.removeprefix(_MAPPED) for word in words[1:3])
                    ends[int(words[9])] = (local, remote)
    inside = set(ends.values())
    return {inode for inode, (local, remote) in ends.items() if (remote, local) not in inside}


def _others(held: list[_Held]) -> Iterator[Outside]:
    masters = {
        index.decode("ascii", "replace")
        for one in held
        if one.link.endswith("ptmx") and (index := _info(one, b"tty-index")) is not None
    }
    for one in held:
        if one.link.startswith("anon_inode:"):
            name = one.link.removeprefix("anon_inode:")
            if name.startswith("[io_uring"):
                yield Outside(one.pid, one.fd, Leads.IO_URING, one.link, imageable=False)
            elif name.startswith(_SPECIAL):
                yield Outside(one.pid, one.fd, Leads.DEVICE, one.link, imageable=False)
        else:
            leads = _device(one, masters)
            if leads is not None:
                yield Outside(one.pid, one.fd, leads, one.link, imageable=False)


def _device(held: _Held, masters: set[str]) -> Leads | None:
    """What a descriptor of something in ``/dev`` leads to; None where an image holds it."""
    try:
        status = os.stat(f"/proc/{held.pid}/fd/{held.fd}")
    except OSError:
        return None
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if stat.S_ISBLK(status.st_mode):
        return Leads.DEVICE
    if not stat.S_ISCHR(status.st_mode) or major == _MEMORY or (major, minor) == _TUN:
        return None
    if major in _PTYS:
        return None if held.link.rpartition("/")[2] in masters else Leads.TTY
    if major in {_TTY, _TTYAUX}:
        return None if held.link.endswith("ptmx") else Leads.TTY
    return Leads.DEVICE
