"""That a CRIU worked here, remembered from one process to the next, in a file beside the store.

Only that one worked, and only while everything it may depend on is the same: the boot and the
kernel, who asks and what he may do, his namespaces, the program's file and its version. Whatever
the file says otherwise, or whoever wrote it otherwise, counts as nothing: then CRIU is tried again,
which is all that is lost. Where an image fails for a reason that a trial would have met, it is
forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.version import VERSION
from crabrt.process.criu.causes import Cause
from crabrt.process.criu.programs import Criu
from crabrt.workspace.procfs import read

NAME: Final = "criu-works.json"
"""The file, in the directory that is given."""

_MOST: Final = 16
"""How many answers are kept: the newest, for programs and namespaces."""
_BYTES_MOST: Final = 64 << 10
_NAMESPACES: Final = ("user", "pid", "mnt", "net")
_MAY: Final = (b"Uid:", b"Gid:", b"CapEff:", b"CapBnd:", b"NoNewPrivs:", b"Seccomp:")
"""What ``/proc/self/status`` says of what this process may do."""

_A_TRIAL_SHOWS: Final = frozenset(
    {Cause.PRIVILEGE, Cause.STARTING, Cause.CONNECTION, Cause.DAMAGED_IMAGE, Cause.TIME_LIMIT,
     Cause.KILLED, Cause.OTHER}
)  # fmt: skip
"""Not: what lies in a tree, in its files, or in who has its numbers and ports meanwhile."""

_doubts = 0


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says: digests (`_key`), the newest last."""

    works: tuple[str, ...] = ()


class Memory:
    """What is remembered in a directory.

    Args:
        directory: the store's; nothing is remembered where it does not exist, or is not ours alone.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME

    def recalled(self, criu: Criu) -> Criu | None:
        """`criu` (its program, and the version that it tells now) if it is known to work here."""
        key = _key(criu)
        return self._noted(criu) if key is not None and key in self._read() else None

    def remember(self, criu: Criu) -> Criu:
        """Note that `criu` works, unless that cannot be noted; the same, noted."""
        key = _key(criu)
        if key is None:
            return criu
        known = [one for one in self._read() if one != key]
        try:
            self._write([*known, key][-_MOST:])
        except OSError:  # a full or a read-only disk: it is tried again next time
            return criu
        return self._noted(criu)

    def forget(self, criu: Criu) -> None:
        """Know nothing of `criu` any more."""
        key, known = _key(criu), self._read()
        if not known or (key is not None and key not in known):
            return
        try:  # which one it is cannot be told: then nothing is sure
            self._write([] if key is None else [one for one in known if one != key])
        except OSError:
            with contextlib.suppress(OSError):  # then nothing can be changed there at all
                os.unlink(self._path)

    def _noted(self, criu: Criu) -> Criu:
        return replace(criu, noted_in=self._path.parent)

    def _read(self) -> tuple[str, ...]:
        """What is known; nothing where that is torn, too long, or could be somebody else's."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                status = os.fstat(fd)
                if not _is_ours(status) or not stat.S_ISREG(status.st_mode):
                    return ()
                data = file.read(_BYTES_MOST + 1)
            return msgspec.json.decode(data, type=_Kept).works if len(data) <= _BYTES_MOST else ()
        except (OSError, msgspec.MsgspecError):  # absent, or not to be trusted: it is tried again
            return ()

    def _write(self, works: Sequence[str]) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: it cannot be, or the directory is not ours alone.
        """
        if not _is_ours(os.stat(self._path.parent)):
            raise PermissionError(f"{self._path.parent} may be changed by others")
        draft = self._path.with_name(f"{NAME}.{os.urandom(8).hex()}.tmp")
        try:
            with open(draft, "xb", opener=_private) as file:
                file.write(msgspec.json.encode(_Kept(tuple(works))))
            os.replace(draft, self._path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise


def doubt(criu: Criu, cause: Cause) -> None:
    """Forget that `criu` works, if it was remembered and `cause` is what a trial would have met.

    Called where an image failed.
    """
    global _doubts  # noqa: PLW0603 - of this process, as what it has tried is
    if criu.noted_in is not None and cause in _A_TRIAL_SHOWS:
        Memory(criu.noted_in).forget(criu)
        _doubts += 1


def doubts() -> int:
    """How often something was forgotten like that: what this process tried before is no proof."""
    return _doubts


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody else could have written it (root could, anywhere)."""
    others = stat.S_IWGRP | stat.S_IWOTH
    return status.st_uid == os.geteuid() and not status.st_mode & others


def _key(criu: Criu) -> str | None:
    """A digest of all that the answer may depend on; None where that cannot be told."""
    boot = boot_id()
    if boot == "unknown":
        return None
    try:
        status = read(b"/proc/self/status").splitlines()
        namespaces = [os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES]
        file = os.stat(criu.program)
    except OSError:
        return None
    may = [line.decode("ascii", "replace") for line in status if line.startswith(_MAY)]
    numbers = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    facts = [
        VERSION, boot, os.uname().release, may, namespaces, os.fsencode(criu.program).hex(),
        numbers, criu.version,
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
