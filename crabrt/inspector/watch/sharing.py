"""One group for all: this process's own, another process's, or a new one that others may share.

fanotify groups cost everybody who touches the file system, watched or not (1,000 times create,
write and unlink: 112 ms beside no group, 236 ms beside 8, 2,100 ms beside 96), and a user may have
128. So whoever comes first owns the group of a file system, and feeds those who come later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Final

from crabrt.inspector.watch import kernel
from crabrt.inspector.watch.errors import Reason, Refused, SourceLost, Unwatchable
from crabrt.inspector.watch.meeting import Meeting
from crabrt.inspector.watch.owner import Owner
from crabrt.inspector.watch.sources import Far, Near, Source
from crabrt.inspector.watch.view import View, view_of

_RETRY_S: Final = 0.01


class _Books:
    """What this process owns and uses. The lock is held while anything is opened or closed.

    Attributes:
        shared: groups that others may share, by where they meet.
        every: all groups.
        used: all sources.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shared: dict[tuple[int, int, str], Owner] = {}
        self.every: set[Owner] = set()
        self.used: weakref.WeakSet[Far] = weakref.WeakSet()
        self.hooked = False

    def hook_fork(self) -> None:
        """Once; not at import, which has no effects."""
        if not self.hooked:
            os.register_at_fork(after_in_child=self.forked)
            self.hooked = True

    def forked(self) -> None:
        """In the child: its parent's descriptors came along, and must not outlive the parent."""
        self.lock = threading.Lock()
        for owner in self.every:
            owner.abandon()
        for source in self.used:
            source.abandon()
        self.shared.clear()
        self.every.clear()
        self.used = weakref.WeakSet()

    def strike(self, owner: Owner) -> None:
        """It is not to be used any more."""
        self.every.discard(owner)
        for where in [where for where, known in self.shared.items() if known is owner]:
            del self.shared[where]


_BOOKS = _Books()


def attach(
    workspace: int, meeting_place: Path, *, mark: bytes, unlimited: bool, patience_s: float
) -> Source:
    """Be fed with what happens in the directory open at `workspace`, from the return on.

    Args:
        workspace: stays the caller's.
        meeting_place: see `open_watch`.
        mark: see `Kin`.
        unlimited: see `kernel.new_group`; counts only if this process comes to own the group.
        patience_s: how long another process may take to answer.

    Raises:
        Unwatchable: it is not possible here.
    """
    _BOOKS.hook_fork()
    view = view_of(workspace)
    with contextlib.ExitStack() as undo, _BOOKS.lock:
        undo.callback(os.close, view.fd)
        try:
            meeting = Meeting(meeting_place, view.key)
        except OSError:  # there is no place to meet: a group of its own costs others, but works
            owner = _own(workspace, view, None, None, unlimited=unlimited)
            undo.pop_all()
            return _feeds(owner, workspace, mark)
        undo.callback(meeting.close)
        known = _BOOKS.shared.get(meeting.identity)
        if known is not None and known.hub.dead is not None:
            _BOOKS.strike(known)
            known.close()
            known = None
        try:
            if known is not None:
                return Near(known, workspace, mark)
            lock, far = _meet(meeting, workspace, mark, patience_s)
            if far is not None:
                return far
        except (Refused, SourceLost):
            lock = None
        except OSError as error:
            raise Unwatchable(
                f"other observers cannot be met: {error.strerror}", Reason.WORKSPACE
            ) from error
        if lock is None:
            owner = _own(workspace, view, None, None, unlimited=unlimited)
            meeting.close()
        else:
            undo.callback(os.close, lock)
            owner = _own(workspace, view, meeting, lock, unlimited=unlimited)
            _BOOKS.shared[meeting.identity] = owner
        undo.pop_all()
        return _feeds(owner, workspace, mark)


def _feeds(owner: Owner, workspace: int, mark: bytes) -> Source:
    """Note a new owner, and be its first client. With the lock of the books held."""
    _BOOKS.every.add(owner)
    try:
        return Near(owner, workspace, mark)
    except (Refused, SourceLost) as error:
        _BOOKS.strike(owner)
        owner.close()
        raise Unwatchable(str(error), Reason.FILE_SYSTEM) from error


def detach(source: Source) -> None:
    """Be fed no longer; a group that feeds nobody is closed."""
    with _BOOKS.lock:
        source.close()
        if isinstance(source, Near) and source.owner in _BOOKS.every and source.owner.idle:
            _BOOKS.strike(source.owner)
            source.owner.close()


def _meet(
    meeting: Meeting, workspace: int, mark: bytes, patience_s: float
) -> tuple[int | None, Far | None]:
    """The lock, or a feed of whoever has it.

    An owner that dies drops the lock before anybody can tell, one that starts takes it before it
    listens: so both are tried in turn.

    Raises:
        Refused: the owner cannot see this workspace.
        SourceLost: it has the lock, and does not answer.
    """
    until = time.monotonic() + patience_s
    while True:
        lock = meeting.lock()
        if lock is not None:
            return lock, None
        try:
            far = Far(meeting.connect(patience_s), workspace, mark)
        except (OSError, SourceLost) as error:
            if isinstance(error, PermissionError) or time.monotonic() > until:
                raise SourceLost(str(error)) from error
            time.sleep(_RETRY_S)
            continue
        _BOOKS.used.add(far)
        return None, far


def _retire(owner: Owner) -> bool:
    """On the owner's thread: free it if it feeds nobody, unless others open or close just now."""
    if not _BOOKS.lock.acquire(blocking=False):
        return False
    try:
        useless = owner.idle or owner.hub.dead is not None
        if not useless or owner not in _BOOKS.every:
            return False
        _BOOKS.strike(owner)
        owner.free()
        return True
    finally:
        _BOOKS.lock.release()


def _own(
    workspace: int,
    view: View,
    meeting: Meeting | None,
    lock: int | None,
    *,
    unlimited: bool,
) -> Owner:
    group = marked_group(workspace, unlimited=unlimited)
    try:
        return Owner(group, view, retire=_retire, meeting=meeting, lock=lock)
    except OSError as error:
        os.close(group)
        raise Unwatchable(
            f"the observer cannot be set up: {error.strerror}", Reason.WORKSPACE
        ) from error


def marked_group(workspace: int, *, unlimited: bool) -> int:
    """A group that reports on the file system of `workspace`.

    Raises:
        Unwatchable: the kernel or the file system refuses, and why.
    """
    group = -1
    try:
        group = kernel.new_group(unlimited=unlimited)
        kernel.mark_file_system(group, workspace)
    except OSError as error:
        if group >= 0:
            os.close(group)
        raise refusal(error) from error
    return group


_ROOT: Final = "fanotify takes root (CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH)"

_REFUSALS: Final[dict[int, tuple[Reason, str]]] = {
    errno.EPERM: (Reason.PRIVILEGE, _ROOT),
    errno.EACCES: (Reason.PRIVILEGE, _ROOT),
    errno.EINVAL: (Reason.KERNEL, "fanotify takes Linux 5.17 or newer"),
    errno.ENOSYS: (Reason.KERNEL, "this kernel has no fanotify"),
    errno.EMFILE: (Reason.LIMIT, "this user has all the fanotify groups it may have"),
    errno.ENFILE: (Reason.LIMIT, "the system is out of descriptors"),
    errno.ENOMEM: (Reason.LIMIT, "the system is out of memory"),
    errno.ENOSPC: (Reason.LIMIT, "this user has all the fanotify marks it may have"),
    errno.ENODEV: (Reason.FILE_SYSTEM, "the file system has no id"),
    errno.EOPNOTSUPP: (Reason.FILE_SYSTEM, "the file system has no file handles"),
    errno.EXDEV: (Reason.FILE_SYSTEM, "a btrfs subvolume cannot be watched as a whole"),
}


def refusal(error: OSError) -> Unwatchable:
    """What an errno of `kernel` means for somebody who wants to watch."""
    reason, text = _REFUSALS.get(
        error.errno or 0, (Reason.KERNEL, error.strerror or "the kernel refuses")
    )
    return Unwatchable(text, reason)
