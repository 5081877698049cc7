"""Why an image could not be taken or brought back: from CRIU's log to a reason for people.

The patterns are those of messages that CRIU 4.2 was seen to write in each case (the tests stage
most of them). A log that none of them fits is answered with its first error line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple, TypeVar

from crabrt.errors import RestoreFailed, Unprotected

LOG_LINES: Final = 20
"""How many of the last lines of a log an error keeps."""

_STARTS: Final = 12
_BETWEEN_STARTS_S: Final = 0.02
T = TypeVar("T")


class Cause(StrEnum):
    """What stood in the way; for programs."""

    IO_URING = "io-uring"
    UNIX_SOCKET = "unix-socket"
    DEVICE = "device"
    TTY = "tty"
    INOTIFY = "inotify"
    GHOST_FILE = "ghost-file"
    LINK = "link"
    SHARED_MEMORY = "shared-memory"
    NAMESPACE = "namespace"
    CONNECTION = "connection"
    TRACED = "traced"
    GONE = "gone"
    PRIVILEGE = "privilege"
    OTHER_USER = "other-user"
    NO_SPACE = "no-space"
    PID_TAKEN = "pid-taken"
    FILE_CHANGED = "file-changed"
    FILE_MISSING = "file-missing"
    PORT_IN_USE = "port-in-use"
    FILE_LOCK = "file-lock"
    SESSION = "session"
    MACHINE = "machine"
    DAMAGED_IMAGE = "damaged-image"
    STARTING = "starting"
    TIME_LIMIT = "time-limit"
    KILLED = "killed"
    OTHER = "other"


class NotImaged(Unprotected):
    """A process tree could not be imaged.

    Attributes:
        cause: for programs.
        log: the last lines of CRIU's log.
        lost: processes of the tree that ended meanwhile; empty as a rule (docs/internals/images.md
            says when a dump that is killed takes a process with it).
    """

    kind: ClassVar[str] = "not-imaged"

    def __init__(
        self,
        message: str,
        cause: Cause,
        *,
        log: Sequence[str] = (),
        lost: Sequence[int] = (),
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.cause = cause
        self.log = tuple(log)
        self.lost = tuple(lost)


class NotRevived(RestoreFailed):
    """A process tree could not be brought back. Nothing of it is left running.

    Attributes:
        cause: for programs.
        log: the last lines of CRIU's log.
        pid: of the process that has the number which is needed, for `Cause.PID_TAKEN`; else None.
    """

    kind: ClassVar[str] = "not-revived"

    def __init__(
        self,
        message: str,
        cause: Cause,
        *,
        log: Sequence[str] = (),
        pid: int | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.cause = cause
        self.log = tuple(log)
        self.pid = pid


def started(run: Callable[[], T]) -> T:
    """What `run` gives, which is tried again where CRIU did not start: nothing was touched then.

    Raises:
        NotImaged, NotRevived: as `run` does.
    """
    for left in reversed(range(_STARTS)):
        try:
            return run()
        except (NotImaged, NotRevived) as error:
            if error.cause is not Cause.STARTING or not left:
                raise
        time.sleep(_BETWEEN_STARTS_S)
    raise AssertionError("it is tried at least once")


class Reason(NamedTuple):
    """What a log says.

    Attributes:
        cause: for programs.
        text: for people, half a sentence.
        pid: a process that it is about, or None.
    """

    cause: Cause
    text: str
    pid: int | None = None


_C = Cause
_PATTERNS: Final = tuple(
    (re.compile(pattern), cause, text)
    for pattern, cause, text in (
        # Seen first whatever follows from it.
        (r"No space left on device|Disk quota exceeded", _C.NO_SPACE,
         "there is no space for the images"),
        # It tries the kernel with children of its own before it touches anything, and takes one for
        # an earlier one where both had the same number.
        (r"vdso: (?:Can't open \d+/maps|Compat vdso helper|Child (?:unexpected|is unstop))",
         _C.STARTING,
         "CRIU did not start: it lost a child of its own (are process numbers given out anew?)"),
        (r"CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE|You need to be root", _C.PRIVILEGE,
         "it takes root, or CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN and CAP_SYS_PTRACE"),
        # Taking images.
        (r"Can't get rlimit \d+: Operation not permitted", _C.OTHER_USER,
         "it is not one user's alone: the limits of others' processes take CAP_SYS_RESOURCE"),
        (r"Unable to interrupt task: (?P<pid>\d+) \(Operation not permitted\)", _C.TRACED,
         "process {pid} is traced by another program, or out of reach"),
        (r"Unable to interrupt task: (?P<pid>\d+) \(No such process\)", _C.GONE,
         "process {pid} has ended"),
        (r"pie: (?P<pid>\d+): Error .*send_fds failed \(-22\)", _C.IO_URING,
         "process {pid} holds io_uring, which no image can hold"),
        (r"Can't dump half of stream unix connection.*peer name: (?P<what>[^\n]*)",
         _C.UNIX_SOCKET, "a Unix socket leads out of the tree (to {what})"),
        (r"External socket is used", _C.UNIX_SOCKET, "a Unix socket leads out of the tree"),
        # CRIU calls no device by its name. 195 is NVIDIA's major number, 226 that of graphics
        # (devices.txt of the kernel); /dev/kfd has another one on each machine.
        (r"Can't dump file \d+ of that type \[\d+\] \(chr 195:(?P<what>\d+)\)", _C.DEVICE,
         "a GPU is in use (NVIDIA's, chr 195:{what})"),
        (r"Can't dump file \d+ of that type \[\d+\] \(chr 226:(?P<what>\d+)\)", _C.DEVICE,
         "a GPU is in use (/dev/dri, chr 226:{what})"),
        (r"Can't dump file \d+ of that type \[\d+\] \((?P<what>[^)]*)\)", _C.DEVICE,
         "a device or a special file is open ({what})"),
        (r"Can't handle non-regular mapping on (?P<pid>\d+)'s map", _C.DEVICE,
         "process {pid} has mapped a device (a GPU's memory is such a mapping)"),
        (r"slave peer index|tty: Don't have tty to inherit|tty: .*(?:Can't|Unable|not found)",
         _C.TTY, "a terminal whose other end is elsewhere is open"),
        (r"Can't dump ghost file (?P<what>.+) of \d+ size", _C.GHOST_FILE,
         "a deleted file that is still open is too large for the image (/{what})"),
        (r"Can't create link remap for (?P<what>.+?)\. ", _C.LINK,
         "a deleted file that has another name is open (/{what})"),
        (r"(?:fsnotify|inotify|irmap): .*(?:Can't|Unable|Failed)", _C.INOTIFY,
         "a file watcher watches something whose path cannot be told"),
        (r"SysVIPC shmem map|doesn't live in IPC ns", _C.SHARED_MEMORY,
         "System V shared memory is in use"),
        (r"doesn't belong to the target user namespace|Unable to convert uid or gid",
         _C.NAMESPACE, "it has a user namespace of its own"),
        (r"A session leader of \d+\(\d+\) is outside of its pid namespace", _C.SESSION,
         "a session was begun outside of the PID namespace"),
        (r"In-flight connection|Failed to lock TCP|tcp: .*(?:Can't|Failed)", _C.CONNECTION,
         "a connection cannot be imaged"),
        # Bringing them back.
        (r"Can't fork for (?P<pid>\d+): File exists", _C.PID_TAKEN,
         "the process number {pid} is taken"),
        (r"Unable to create a thread: -17", _C.PID_TAKEN, "the number of a thread is taken"),
        (r"File (?P<what>.+) has bad size (?P<size>\d+) \(expect (?P<expected>\d+)\)",
         _C.FILE_CHANGED, "/{what} has {size} bytes now and had {expected}"),
        (r"File (?P<what>.+) has bad (?P<how>build-ID|mode|checksum)", _C.FILE_CHANGED,
         "/{what} is not the file it was (its {how} differs)"),
        (r"Can't open file (?P<what>.+?)(?: on restore)?: No such file or directory",
         _C.FILE_MISSING, "/{what} is gone"),
        (r"Can(?:'t|not) set (?:flock|posix lock|ofd lock|lease)", _C.FILE_LOCK,
         "a lock on a file that it held is another program's now"),
        (r"(?:Can't bind inet socket|unix: .*bind).*: Address already in use", _C.PORT_IN_USE,
         "an address that it listened on is taken by another program"),
        (r"Can't open (?:image )?(?P<what>\S+\.img)", _C.DAMAGED_IMAGE,
         "the images are incomplete: there is no {what}"),
        (r"[Mm]agic|Unexpected EOF|Failed unpacking|[Cc]orrupted|Can't read pages|: img ",
         _C.DAMAGED_IMAGE, "the images are damaged"),
        (r"stopped by signal 11", _C.DAMAGED_IMAGE, "CRIU crashed, as over damaged images"),
    )
)  # fmt: skip

_NOISE: Final = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE")
"""A complaint that CRIU goes on after."""

_ERROR: Final = re.compile(r"Error \([^)]*\): (?P<text>.*)")


def explain(log: Sequence[str]) -> Reason:
    """What the lines of a log say went wrong."""
    lines = [line for line in log if not _NOISE.search(line)]
    text = "\n".join(lines)
    for pattern, cause, template in _PATTERNS:
        found = pattern.search(text)
        if found:
            parts = {name: _tidy(value) for name, value in found.groupdict().items()}
            pid = parts.get("pid")
            return Reason(cause, template.format(**parts), int(pid) if pid else None)
    for line in lines:
        error = _ERROR.search(line)
        if error:
            return Reason(Cause.OTHER, f"criu says: {error['text']}")
    last = next((line for line in reversed(lines) if line.strip()), "nothing")
    return Reason(Cause.OTHER, f"criu says: {last.strip()}")


def _tidy(value: str | None) -> str:
    text = (value or "").strip().lstrip("/")
    return "a program outside" if text in {"", "(null)"} else text
