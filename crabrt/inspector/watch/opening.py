"""Opening a watch on a workspace, and what it does when its source is lost: find another."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from crabrt.inspector.watch.dirty import Dirty, Holders, Watch
from crabrt.inspector.watch.errors import Reason, SourceLost, Unwatchable
from crabrt.inspector.watch.ground import Ground
from crabrt.inspector.watch.holding import Holding
from crabrt.inspector.watch.sharing import attach, detach
from crabrt.inspector.watch.sources import Source
from crabrt.workspace.dirfd import open_directory
from crabrt.workspace.stamps import file_system

FILE_SYSTEMS: Final = frozenset({"ext2/3/4", "xfs", "btrfs", "tmpfs", "f2fs"})
"""Those whose every change goes through this kernel and this file system, and which have handles.
Not overlay: what is written to the layers below goes past it, and most of its handles do not open.
"""

PATIENCE_S: Final = 2.0


def open_watch(
    workspace: str | bytes | os.PathLike[str],
    meeting_place: Path,
    *,
    mark: bytes = b"",
    unlimited: bool = True,
    patience_s: float = PATIENCE_S,
) -> Watch:
    """Watch the directory `workspace` from now on.

    Args:
        workspace: links in its path are followed.
        meeting_place: a directory of the user's; all processes that meet there share a group.
        mark: ``NAME=VALUE`` in the environment of everything that the run starts: tells its
            processes from foreign ones.
        unlimited: let the kernel queue grow without limit; else ``max_queued_events`` is one.
        patience_s: how long another process that owns the group may take to answer.

    Raises:
        Unwatchable: it is not possible here; `reason` and message say why.
    """
    path = os.path.realpath(os.fsencode(workspace))
    try:
        fd = open_directory(path)
    except OSError as error:
        raise Unwatchable(
            f"the workspace cannot be opened: {error.strerror}",
            Reason.WORKSPACE,
            where=os.fsdecode(path),
        ) from error
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        check_file_system(fd)
        try:
            ground = Ground(path, fd)
        except OSError as error:
            raise Unwatchable(f"/proc cannot be read: {error.strerror}", Reason.KERNEL) from error
        undo.callback(ground.close)
        watch = _Watching(fd, ground, _Terms(meeting_place, mark, unlimited, patience_s))
        undo.pop_all()
        return watch


def check_file_system(fd: int) -> str:
    """The name of the file system that `fd` is on.

    Raises:
        Unwatchable: changes on it may go unreported.
    """
    name = file_system(fd)
    if name not in FILE_SYSTEMS:
        what = "this file system" if name is None else name
        raise Unwatchable(
            f"changes on {what} are not all reported",
            Reason.FILE_SYSTEM,
            hint=f"what can be watched: {', '.join(sorted(FILE_SYSTEMS))}",
        )
    return name


class _Terms(msgspec.Struct, frozen=True):
    """How a source is found, the first time and again. See `open_watch`."""

    meeting_place: Path
    mark: bytes
    unlimited: bool
    patience_s: float

    def attach(self, fd: int) -> Source:
        return attach(
            fd,
            self.meeting_place,
            mark=self.mark,
            unlimited=self.unlimited,
            patience_s=self.patience_s,
        )


class _Watching:
    """The watch that `open_watch` gives out.

    A source that is lost is replaced before the drain that noticed it returns: the scan which that
    drain asks for is then already watched, and nothing falls between the two.
    """

    def __init__(self, fd: int, ground: Ground, terms: _Terms) -> None:
        self._fd = fd
        self._ground = ground
        self._terms = terms
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._source: Source | None = terms.attach(fd)
        self._holding = Holding(fd)

    def drain(self) -> Dirty:
        return self._told_by(lambda source: source.drain(), self._ground.moved)

    def peek(self) -> Dirty:
        return self._told_by(lambda source: source.peek(), lambda: None)

    def _told_by(
        self, asked: Callable[[Source], Dirty], why_all: Callable[[], str | None]
    ) -> Dirty:
        if os.getpid() != self._pid:
            return Dirty(unknown="a forked child does not watch")
        with self._lock:
            if self._closed:
                return Dirty(unknown="the watch is closed")
            try:
                dirty = asked(self._source_now())
            except SourceLost as lost:
                dirty = Dirty(unknown=str(lost))
                self._find_another()
            why = why_all()
            return dirty if why is None else Dirty(unknown=why, events=dirty.events)

    def holders(self) -> Holders:
        if os.getpid() != self._pid:
            return Holders(unseen=1)
        with self._lock:
            return Holders(unseen=1) if self._closed else self._holding.look()

    def close(self) -> None:
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._source is not None:
                detach(self._source)
            self._ground.close()
            os.close(self._fd)

    def _source_now(self) -> Source:
        if self._source is None:
            raise SourceLost("the workspace is not watched any more")
        return self._source

    def _find_another(self) -> None:
        if self._source is not None:
            detach(self._source)
            self._source = None
        with contextlib.suppress(Unwatchable):  # told by this drain, and by each until it works
            self._source = self._terms.attach(self._fd)
