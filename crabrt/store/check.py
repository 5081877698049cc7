"""Is everything in the store what was written? Reads, reports, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import msgspec

from crabrt.core.ids import ObjectId
from crabrt.errors import CrabError
from crabrt.store import layout, locks, packs
from crabrt.store.failures import unavailable
from crabrt.store.format import read_format
from crabrt.store.index import lock_path, writer_of
from crabrt.store.packs import Item, NoFooter
from crabrt.store.salvage import record_problem
from crabrt.store.store import Store


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it should be.

    Attributes:
        area: ``format``, ``pack``, ``object``, ``catalog`` or ``mode``.
        where: a path, or ``pack:offset``.
        text: what is wrong, one sentence.
        objects: ids that cannot be read because of it (as far as known).
    """

    area: str
    where: str
    text: str
    objects: tuple[ObjectId, ...] = ()


class CheckReport(msgspec.Struct, frozen=True):
    """What a `check` found.

    Attributes:
        problems: in the order they were found; none means that everything is well.
        packs: how many were looked at; `objects` and `size_bytes`: what is in them.
        unsealed: packs that are being written, or wait for the next writer to seal them.
        bytes_read: how much was re-hashed.
    """

    problems: tuple[Problem, ...]
    packs: int = 0
    objects: int = 0
    size_bytes: int = 0
    unsealed: int = 0
    bytes_read: int = 0


Progress = Callable[[int, int], None]
"""Called with packs done, packs in all."""


def check(store: Store, *, read_data: bool, progress: Progress | None = None) -> CheckReport:
    """Check format, packs and catalog; with `read_data`, re-hash every object.

    Whether everything that journals refer to is there is for the floors above to ask.

    Raises:
        StoreUnavailable: the packs cannot be listed.
    """
    return _Check(store, read_data=read_data).run(progress)


class _Check:
    def __init__(self, store: Store, *, read_data: bool) -> None:
        self.store = store
        self.read_data = read_data
        self.problems: list[Problem] = []
        self.packs = self.objects = self.size_bytes = self.unsealed = self.bytes_read = 0

    def run(self, progress: Progress | None) -> CheckReport:
        self._format()
        self.store.index.refresh()
        names = sorted(layout.list_packs(self.store.home))
        for done, name in enumerate(names):
            self._pack(name)
            if progress is not None:
                progress(done + 1, len(names))
        problem = self.store.index.catalog.problem()
        if problem is not None:
            self._note("catalog", layout.CATALOG, f"SQLite says: {problem}")
        self._modes()
        return CheckReport(
            tuple(self.problems),
            self.packs,
            self.objects,
            self.size_bytes,
            self.unsealed,
            self.bytes_read,
        )

    def _note(self, area: str, where: str, text: str, *objects: ObjectId) -> None:
        self.problems.append(Problem(area, where, text, objects))

    def _format(self) -> None:
        try:
            read_format(self.store.home)
        except CrabError as error:
            self._note("format", error.where or layout.FORMAT, error.message)

    def _modes(self) -> None:
        for path in (self.store.home, *(self.store.home / name for name in layout.DIRECTORIES)):
            try:
                mode = os.stat(path).st_mode & 0o777
            except OSError as error:
                self._note("format", str(path), f"it cannot be looked at: {error.strerror}")
                continue
            if mode & 0o077:
                self._note(
                    "mode", str(path), f"others may look inside (mode {mode:o} instead of 700)"
                )

    def _pack(self, name: str) -> None:
        path = layout.pack_path(self.store.home, name)
        try:
            file = packs.Descriptor(path)
        except FileNotFoundError:
            return  # gc was faster
        except OSError as error:
            self._note("pack", str(path), f"it cannot be opened: {error.strerror}")
            return
        try:
            self.size_bytes += os.fstat(file.fd).st_size
            self.packs += 1
            self._records(file.fd, name, path.as_posix())
        except OSError as error:
            raise unavailable(error, path, "reading a pack") from error

    def _records(self, fd: int, name: str, where: str) -> None:
        problem = packs.header_problem(fd, name)
        unfinished = self._unfinished(name)
        if problem is not None:
            if not unfinished or _is_sealed(fd):
                self._note("pack", where, problem)
            return
        try:
            footer = packs.read_footer(fd)
        except NoFooter as error:
            items: Iterator[Item] = packs.scan(fd, name, packs.HEADER_BYTES)
            if error.damaged and not unfinished:
                self._note("pack", where, str(error))
            else:
                self.unsealed += 1
        else:
            items = footer.items(name)
            self._catalogued(name, footer.start)
        for item in items:
            self.objects += 1
            if self.read_data:
                self._record(fd, item)

    def _unfinished(self, name: str) -> bool:
        """Whether the pack is a live writer's, or a dead one's that was never sealed."""
        if locks.content_of(lock_path(self.store.home, writer_of(name))) is not None:
            return True
        state = self.store.index.catalog.packs().get(name)
        return state is None or not state.sealed

    def _catalogued(self, name: str, end: int) -> None:
        state = self.store.index.catalog.packs().get(name)
        if state is not None and state.indexed_to > end:
            self._note("catalog", name, "the catalog knows more of this pack than there is")

    def _record(self, fd: int, item: Item) -> None:
        record = packs.read_exactly(fd, item.at.length, item.at.offset)
        self.bytes_read += len(record)
        error = record_problem(record, item)
        if error is not None:
            self._note("object", error.where or "", error.message, item.id)


def _is_sealed(fd: int) -> bool:
    """Whether a pack has its footer: it was finished, whatever the catalog remembers of it."""
    try:
        packs.read_footer(fd)
    except NoFooter:
        return False
    return True
