"""What a dump that dies halfway leaves in a process tree, and how that is mended.

CRIU holds a tree by ptrace, and runs a piece of code of its own inside it. When CRIU is killed the
kernel lets go of the tree at once, and that code puts each process back by itself. Three things
are left (each was seen; docs/internals/images.md):

* TCP sockets in repair mode: the next ``recv`` fails with EPERM. They can be taken out of it from
  outside, and are. Where we end CRIU that is done before the tree runs again; where somebody else
  does, the tree may be quicker.
* A process that CRIU was making do a system call, or a thread that it was asking for its state, or
  a process that it was about to leave, stands in front of a breakpoint: it dies of SIGTRAP or
  SIGSEGV. That takes a small part of a dump. Who ends CRIU on purpose chooses another moment:
  `harmless`.
* Two mappings of a memfd called CRIUMFD, 1.3 MiB, in each process that was dumped at that moment.
  They stay, and do no harm: the next dump works, and they are part of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crabrt.process import table, unseen
from crabrt.process.signalling import send
from crabrt.workspace.procfs import read, threads

_PIDFD_GETFD: Final = 438  # the same number on every architecture
_TCP_REPAIR: Final = 19
_INJECTED_BYTES: Final = 64
"""CRIU puts its system call at the start of the first executable mapping; it is shorter than this.
"""
_SLEEPS: Final = "S"
_LET_GO_LIMIT_S: Final = 2.0
_POLL_S: Final = 0.001


@dataclass(frozen=True)
class Tree:
    """A process tree as it was before a dump.

    Attributes:
        processes: the root first, parents before children.
        cgroup: that is frozen with it, or None.
        cgroup_was_frozen: what to leave it as.
    """

    processes: tuple[table.Process, ...]
    cgroup: Path | None = None
    cgroup_was_frozen: bool = False

    @classmethod
    def of(cls, root: int, cgroup: Path | None = None) -> Tree | None:
        """The tree under `root`; None if there is no such process.

        Raises:
            OSError: it cannot be looked at, or `cgroup` is none of version 2.
        """
        top = table.look(root)
        if top is None or top.ended:
            return None
        processes = (top, *(one for one in table.descendants(root) if not one.ended))
        if cgroup is None:
            return cls(processes)
        return cls(processes, cgroup, (cgroup / "cgroup.freeze").read_text().strip() == "1")

    def alive(self) -> list[table.Process]:
        """Those that live, as they are now."""
        found = []
        for process in self.processes:
            with contextlib.suppress(OSError):
                now = table.look(process.pid)
                if now is not None and now.identity == process.identity and not now.ended:
                    found.append(now)
        return found

    def lost(self) -> list[int]:
        """The numbers of those that have ended."""
        alive = {process.pid for process in self.alive()}
        return [process.pid for process in self.processes if process.pid not in alive]


def harmless(tree: Tree) -> bool:
    """Whether nothing of the tree stands where it would die, were CRIU killed now.

    CRIU itself has to be stopped, so that the answer stays true.
    """
    for process in tree.alive():
        try:
            injected, parasite = _injected(process.pid)
            for thread in threads(process.pid):
                at = _counter(process.pid, thread)
                if at is None or at in injected:
                    return False
                if any(at in span for span in parasite) and not _serves(process.pid, thread):
                    return False
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return False
    return True


def _counter(pid: int, thread: int) -> int | None:
    """Where a thread that does not run goes on; None if it runs."""
    words = read(b"/proc/%d/task/%d/syscall" % (pid, thread)).split()
    return None if words[:1] == [b"running"] or not words else int(words[-1], 16)


def _serves(pid: int, thread: int) -> bool:
    """Whether a thread in CRIU's code waits there for what it is asked, which it ends by itself.

    Only the first thread does. Where it is stopped in that code CRIU is on its way in or out: out
    goes by a breakpoint of the processor, which stays when CRIU is gone.
    """
    found = table.look(pid)
    return thread == pid and found is not None and found.state == _SLEEPS


def _injected(pid: int) -> tuple[range, list[range]]:
    """Where CRIU puts its system calls, and where its own code lies, in a process."""
    first: range | None = None
    parasite = []
    for line in read(b"/proc/%d/maps" % pid).splitlines():
        words = line.split(maxsplit=5)
        begin, _, end = words[0].partition(b"-")
        if first is None and b"x" in words[1]:
            first = range(int(begin, 16), int(begin, 16) + _INJECTED_BYTES)
        if words[5:] and words[5].startswith(b"/memfd:CRIUMFD"):
            parasite.append(range(int(begin, 16), int(end, 16)))
    return first or range(0), parasite


def hold(tree: Tree) -> None:
    """Nothing of the tree runs on when CRIU lets go of it."""
    if tree.cgroup is not None:
        _freeze(tree.cgroup, frozen=True)
        return
    for process in tree.processes:  # those too that were stopped: CRIU has set them going
        send(process.identity, signal.SIGSTOP)


def mend(tree: Tree) -> None:
    """Wait until CRIU has let go of the tree, which is held, and take back what it left."""
    rests(tree)
    end_repair(tree)


def end_repair(tree: Tree) -> None:
    """Take the TCP sockets of a tree that stands still out of repair mode."""
    for process in tree.alive():
        with contextlib.suppress(OSError):  # it ended
            _end_repair(process.pid)


def rests(tree: Tree) -> bool:
    """Wait until CRIU has let go of the tree, which is held; whether it has, and all stand."""
    until = time.monotonic() + _LET_GO_LIMIT_S
    while not _rests(tree):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def release(tree: Tree) -> None:
    """The tree runs as it did before. Children first, so that no parent sees them stopped."""
    if tree.cgroup is not None:
        _freeze(tree.cgroup, frozen=tree.cgroup_was_frozen)
        return
    goes_on = {one.pid: one for one in tree.processes if one.state != "T"}

    def tell(pid: int) -> None:
        if pid in goes_on:
            send(goes_on[pid].identity, signal.SIGCONT)

    unseen.go_on([one.pid for one in tree.processes], tell)


def _freeze(cgroup: Path, *, frozen: bool) -> None:
    with contextlib.suppress(FileNotFoundError):  # removed together with its last process
        (cgroup / "cgroup.freeze").write_text("1" if frozen else "0")


def _rests(tree: Tree) -> bool:
    alive = tree.alive()
    if any(_is_traced(process.pid) for process in alive):
        return False
    return tree.cgroup is not None or all(process.state == "T" for process in alive)


def _is_traced(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for thread in threads(pid):
            status = read(b"/proc/%d/task/%d/status" % (pid, thread))
            if b"\nTracerPid:\t0\n" not in status:
                return True
    return False


def _end_repair(pid: int) -> None:
    """Take the TCP sockets of a process out of repair mode (tcp(7), TCP_REPAIR).

    Leaving that mode sets SO_REUSEADDR to 0, whatever it was (net/ipv4/tcp.c). It is set to 1: who
    had it needs it, and nobody else is hindered by it.

    Raises:
        OSError: the process has ended.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
                fd = libc.syscall(ctypes.c_long(_PIDFD_GETFD), handle, int(name), ctypes.c_uint(0))
                if fd < 0:
                    continue
                with socket.socket(fileno=fd) as held:
                    is_tcp = held.type == socket.SOCK_STREAM and held.family in {
                        socket.AF_INET,
                        socket.AF_INET6,
                    }
                    if is_tcp and held.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
                        held.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
                        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    finally:
        os.close(handle)
