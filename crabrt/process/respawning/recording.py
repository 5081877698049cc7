"""What of a tree without an image can be started again, and what it takes to do so.

The topmost process alone is: what it had started, it starts again itself. But a shell is no
service. Its script did more than start what still runs (it built, installed, deleted), and is at
nobody knows which line; one that reads its commands has read them; and one that forked itself shows
its parent's arguments. So in place of such a shell, what it started is recorded, each for itself.
Only a shell in whose script nothing listens is taken for the job that it is, and would begin anew.

Nothing is recorded of a process that shows a title in place of its command (some servers rewrite
it), nor of one that its program forked, unless that is a daemon: the command is another's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from crabrt.core.processes import LastingProcess, Limit, ProcessTree, Service, Stream
from crabrt.process import table
from crabrt.process.shell.launching import CALLED
from crabrt.workspace.procfs import read

_SHELLS: Final = frozenset({b"sh", b"ash", b"bash", b"dash", b"ksh", b"mksh", b"yash", b"zsh"})
_WITH_A_WORD: Final = frozenset({b"-o", b"+o", b"-O", b"+O", b"--rcfile", b"--init-file"})
_NEVER_EXECUTED: Final = 0x40  # PF_FORKNOEXEC of linux/sched.h
_STOPPED: Final = "T"
_FLAGS, _NICE = 6, 16  # fields of /proc/PID/stat, counted after the name
_KEPT_FLAGS: Final = os.O_ACCMODE | os.O_APPEND
_ENVIRONMENT_MOST: Final = 1 << 20
_UNREADABLE: Final = "something that may not be looked at"


def with_services(trees: Iterable[ProcessTree], *, daemons: bool = True) -> tuple[ProcessTree, ...]:
    """`trees`; those that have no image with what of them can be started again.

    Args:
        trees: whose processes live.
        daemons: whether a process that only forked can be told from a fork of the loop, and one
            that is stopped from one that stands still for a moment, because this is the loop.
    """
    return tuple(
        msgspec.structs.replace(tree, services=tuple(_services(tree, daemons=daemons)))
        if not tree.imaged
        else tree
        for tree in trees
    )


def _services(tree: ProcessTree, *, daemons: bool) -> Iterator[Service]:
    waiting = [tree.top]
    while waiting:
        one = waiting.pop(0)
        try:
            program = os.readlink(b"/proc/%d/exe" % one.pid)
            forked = bool(_number(one.pid, _FLAGS) & _NEVER_EXECUTED)
            if _is_stand_in(tree, one, program, forked=forked):
                waiting += [child for child in tree.processes if child.parent == one.pid]
            elif _shows_its_command(one) and (not forked or (daemons and _is_daemon(one))):
                service = _service(one, program)
                yield service if daemons else msgspec.structs.replace(service, stopped=False)
        except (OSError, ValueError, IndexError):
            continue  # it ended, or is another user's: nothing is known of it


def _is_stand_in(tree: ProcessTree, one: LastingProcess, program: bytes, *, forked: bool) -> bool:
    """Whether in place of `one` what it started is to be started again."""
    called = one.command[0] if one.command else b""
    names = {os.path.basename(program), os.path.basename(called).lstrip(b"-")}
    if CALLED in one.command:
        return True
    serves = any(other.listens for other in tree.below(one.pid))
    return bool(names & _SHELLS) and (forked or _reads_commands(one.command) or serves)


def _reads_commands(command: tuple[bytes, ...]) -> bool:
    """Whether a shell called so has neither ``-c`` nor a script."""
    words = iter(command[1:])
    for word in words:
        if word in _WITH_A_WORD:
            next(words, None)
        elif word == b"--":
            return next(words, None) is None
        elif _is_operand(word) or (word[:2] != b"--" and word[:1] == b"-" and b"c" in word):
            return False
    return True


def _is_operand(word: bytes) -> bool:
    return not word.startswith((b"-", b"+"))


def _shows_its_command(one: LastingProcess) -> bool:
    called = one.command[0] if one.command else b"["
    is_title = b" " in called and not os.path.exists(os.path.join(one.directory, called))
    return not is_title and not called.startswith(b"[")


def _is_daemon(one: LastingProcess) -> bool:
    """Whether it left this program's session, and is no fork of it."""
    found = table.look(one.pid)
    left = found is not None and found.session != os.getsid(0)
    return left and one.command != table.command(os.getpid())


def _service(one: LastingProcess, program: bytes) -> Service:
    pid = one.pid
    found = table.look(pid)
    if found is None or found.identity != one.identity or found.ended:
        raise ProcessLookupError(pid)
    status = dict(
        line.split(b":", 1) for line in read(b"/proc/%d/status" % pid).splitlines() if b":" in line
    )
    environment = read(b"/proc/%d/environ" % pid)
    if len(environment) > _ENVIRONMENT_MOST:
        raise ValueError(pid)
    leads = "session" if found.session == pid else "group" if found.group == pid else ""
    return Service(
        pid,
        program.removesuffix(b" (deleted)"),
        tuple(variable for variable in environment.split(b"\0") if b"=" in variable),
        tuple(_stream(pid, fd) for fd in range(3)),
        int(status[b"Umask"], 8),
        _number(pid, _NICE),
        tuple(_limits(pid)),
        int(status[b"Uid"].split()[0]),
        int(status[b"Gid"].split()[0]),
        tuple(map(int, status[b"Groups"].split())),
        leads,
        found.state == _STOPPED,
    )


def _number(pid: int, field: int) -> int:
    return int(read(b"/proc/%d/stat" % pid).rpartition(b") ")[2].split()[field])


def _limits(pid: int) -> Iterator[Limit]:
    """As the kernel lists them: in the order of their numbers, a line each, the values in columns.

    prlimit(2) would take a privilege where the process is another user's.
    """
    heading, *lines = read(b"/proc/%d/limits" % pid).splitlines()
    at = heading.index(b"Soft Limit")
    for number, line in enumerate(lines):
        soft, hard = (-1 if one == b"unlimited" else int(one) for one in line[at:].split()[:2])
        yield Limit(number, soft, hard)


def _stream(pid: int, fd: int) -> Stream:
    """Where a standard stream leads; nothing of a closed one."""
    link = b"/proc/%d/fd/%d" % (pid, fd)
    try:
        path = os.readlink(link)
        mode = os.stat(link).st_mode
        told = dict(
            line.split(b":", 1) for line in read(b"/proc/%d/fdinfo/%d" % (pid, fd)).splitlines()
        )
        flags, position = int(told[b"flags"], 8), int(told[b"pos"])
    except FileNotFoundError:
        return Stream()
    except (OSError, ValueError, KeyError):
        return Stream(lost=_UNREADABLE)
    if stat.S_ISREG(mode):
        if path.endswith(b" (deleted)"):
            return Stream(lost="a file that has no name any more")
        return Stream(path, flags & _KEPT_FLAGS, position)
    if stat.S_ISCHR(mode):
        return Stream() if path == b"/dev/null" else Stream(lost="a terminal or a device")
    return Stream(lost="a pipe" if stat.S_ISFIFO(mode) else "a socket")
