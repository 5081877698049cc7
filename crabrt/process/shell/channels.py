"""The FIFOs between a loop and its shell, in a private directory.

FIFOs, because whoever knows the directory can open them: the loop that resumes after a kill, and
CRIU, which restores them by path. The session's first process holds each of them open for reading
and writing, so that nothing is lost while no loop is there, and nobody is sent SIGPIPE.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import struct
import termios
from typing import Final

from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.script import AGAIN, KEEPER

OUTPUTS: Final = ("output", "errors", "state")
"""Those that carry what a shell writes; the last is for crabrt's own questions."""

NAMES: Final = ("control", "command", "status", *OUTPUTS)
_FILES: Final = frozenset({*NAMES, "again", "ask", "keeper", "lock"})
_PIPE_BYTES: Final = 1 << 20
_MARK: Final = b"-[0-9a-f]{8}"
BESIDE: Final = re.compile(rb"(.+)" + _MARK)
"""How the channels of a fork's shell are called: first the name of those of the original's."""


def private_directory(base: bytes, name: str) -> bytes:
    """A new directory of nobody else's below `base`, which is made if it is not there.

    Raises:
        ShellUnavailable: `base` cannot be made, or is somebody else's, or open to others.
    """
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        found = os.lstat(base)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ShellUnavailable("this is no directory of yours", where=os.fsdecode(base))
        if found.st_mode & 0o077:
            raise ShellUnavailable(
                "others may look into this directory, and so into the shell",
                where=os.fsdecode(base),
                hint="give another one, or chmod 700",
            )
        path = os.path.join(base, f"{name}-{secrets.token_hex(4)}".encode())
        os.mkdir(path, 0o700)
    except OSError as error:
        raise ShellUnavailable(
            f"there is no place for a shell's channels: {error.strerror}", where=os.fsdecode(base)
        ) from error
    return path


def make(directory: bytes) -> None:
    """Make in `directory` whatever of the channels is not there.

    Before an image is restored on a machine that never had them, too.

    Raises:
        ShellUnavailable: they cannot be made.
    """
    try:
        make_place(directory)
        for name in NAMES:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(os.path.join(directory, name.encode()), 0o600)
        for path, content in ((b"again", AGAIN), (b"keeper", KEEPER)):
            with open(os.path.join(directory, path), "wb") as file:
                file.write(content)
    except OSError as error:
        raise ShellUnavailable(
            f"a shell's channels cannot be made: {error.strerror}", where=os.fsdecode(directory)
        ) from error


def make_place(directory: bytes) -> None:
    """Make a directory for channels, or for others to be seen there, if it is not there.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    os.makedirs(directory, mode=0o700, exist_ok=True)


class Channels:
    """This process's ends of the channels in `directory`; one process at a time has them.

    Raises:
        ShellUnavailable: they cannot be opened, or another process has them.
    """

    def __init__(self, directory: bytes) -> None:
        self.directory = directory
        with contextlib.ExitStack() as undo:
            try:
                self._lock = self._opened(undo, "lock", os.O_RDWR | os.O_CREAT)
                # A record lock: a forked child does not inherit it.
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ends = {name: self._opened(undo, name, os.O_RDWR) for name in NAMES[:2]}
                self.control, self.command = ends.values()
                self.status = self._opened(undo, "status", os.O_RDONLY)
                self.outputs = {name: self._opened(undo, name, os.O_RDONLY) for name in OUTPUTS}
            except BlockingIOError as error:
                raise ShellUnavailable(
                    "another process is attached to this shell", where=os.fsdecode(directory)
                ) from error
            except OSError as error:
                raise ShellUnavailable(
                    f"a shell's channels cannot be opened: {error.strerror}",
                    where=os.fsdecode(directory),
                ) from error
            for fd in self.outputs.values():
                with contextlib.suppress(OSError):  # over the user's limit: then it stays smaller
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._fds = undo.pop_all()

    def _opened(self, undo: contextlib.ExitStack, name: str, flags: int) -> int:
        path = os.path.join(self.directory, name.encode())
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        undo.callback(os.close, fd)
        return fd

    def path(self, name: str) -> bytes:
        """Of a file in the directory."""
        return os.path.join(self.directory, name.encode())

    def put(self, name: str, content: bytes) -> None:
        """Write a file that the shell is going to read.

        Raises:
            ShellUnavailable: it cannot be written.
        """
        try:
            fd = os.open(
                self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with open(fd, "wb") as file:
                file.write(content)
        except OSError as error:
            raise ShellUnavailable(
                f"a command cannot be handed over: {error.strerror}",
                where=os.fsdecode(self.path(name)),
            ) from error

    def send(self, fd: int, data: bytes) -> None:
        """Write a line or an order.

        Raises:
            ShellUnavailable: there is no room, as nobody has read for long.
        """
        try:
            sent = os.write(fd, data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            raise ShellUnavailable(
                "the shell does not read its commands any more",
                where=os.fsdecode(self.directory),
                hint="close it",
            )

    def unread_bytes(self, fd: int) -> int:
        """How much of what was written lies in a channel."""
        answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
        (count,) = struct.unpack("i", answer)
        return int(count)

    def drain_command(self) -> None:
        """Forget lines that nobody has read."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.command, 1 << 16):
                pass

    def close(self) -> None:
        """Let go of the ends; the channels stay."""
        self._fds.close()


_COMMAND: Final = "command-"


def command_name(nonce: str) -> str:
    """The file of a command whose end nobody has seen yet."""
    return _COMMAND + nonce


def pending(directory: bytes) -> str | None:
    """The nonce of a command whose end nobody has seen yet, if there is one."""
    for name in os.listdir(directory):
        if name.startswith(_COMMAND.encode()):
            return os.fsdecode(name).removeprefix(_COMMAND)
    return None


def forget_pending(directory: bytes) -> None:
    """Remove the files of commands whose end nobody has seen.

    Raises:
        OSError: they cannot be removed.
    """
    for name in os.listdir(directory):
        if name.startswith(_COMMAND.encode()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))


def remove(directory: bytes, *, wholly: bool = False) -> None:
    """Remove a directory of channels, with what crabrt put there and nothing else.

    That of a fork's shell stays, empty, and that of a shell with forks: shells see one in the place
    of the other. Where the latter is removed it is unmounted, in whatever namespace that is; and of
    what sees the former when it is gone CRIU takes images that may not come back.

    Args:
        directory: whose shell is gone.
        wholly: nobody sees it.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            is_ours = name.decode("ascii", "replace") in _FILES or name.startswith(
                _COMMAND.encode()
            )
            with contextlib.suppress(FileNotFoundError):
                if is_ours:
                    os.unlink(os.path.join(directory, name))
        if wholly or not _is_of_forks(directory):
            os.rmdir(directory)


def _is_of_forks(directory: bytes) -> bool:
    base, name = os.path.split(directory)
    others = [made[1] for other in os.listdir(base) if (made := BESIDE.fullmatch(other))]
    own = BESIDE.fullmatch(name)
    return name in others or (own is not None and BESIDE.fullmatch(own[1]) is not None)
