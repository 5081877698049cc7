"""What watching would take here: facts for people who ask why it is on or off."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from crabrt.inspector.watch import kernel
from crabrt.inspector.watch.errors import Reason, Unwatchable
from crabrt.inspector.watch.opening import check_file_system
from crabrt.inspector.watch.sharing import marked_group, refusal
from crabrt.workspace.dirfd import open_directory
from crabrt.workspace.stamps import file_system

_LIMITS = Path("/proc/sys/fs/fanotify")


class Facts(msgspec.Struct, frozen=True):
    """Whether a directory can be watched, tried out for real.

    Attributes:
        usable: it can.
        why: what stands in the way; empty if nothing does.
        reason: the same for programs.
        file_system: its name, if it is one of those known.
        release: of the kernel.
        groups_most: fanotify groups a user may have; None if the kernel does not tell.
        queue_most: events that wait in a group which is not unlimited; None likewise.
    """

    usable: bool
    why: str
    reason: Reason | None
    file_system: str | None
    release: str
    groups_most: int | None
    queue_most: int | None


def probe(directory: str | bytes | os.PathLike[str]) -> Facts:
    """Try to watch the file system of `directory`, and stop again at once. Never raises."""
    why, reason, name = "", None, None
    try:
        fd = open_directory(os.path.realpath(os.fsencode(directory)))
    except OSError as error:
        why, reason = f"the directory cannot be opened: {error.strerror}", Reason.WORKSPACE
    else:
        try:
            name = file_system(fd)
            _try(fd)
        except Unwatchable as error:
            why, reason = error.message, error.reason
        finally:
            os.close(fd)
    return Facts(
        usable=reason is None,
        why=why,
        reason=reason,
        file_system=name,
        release=os.uname().release,
        groups_most=_limit("max_user_groups"),
        queue_most=_limit("max_queued_events"),
    )


def _try(fd: int) -> None:
    check_file_system(fd)
    os.close(marked_group(fd, unlimited=True))
    try:
        os.close(kernel.open_handle(fd, kernel.handle_of(fd)))
    except OSError as error:
        raise refusal(error) from error


def _limit(name: str) -> int | None:
    try:
        return int((_LIMITS / name).read_text())
    except (OSError, ValueError):
        return None
