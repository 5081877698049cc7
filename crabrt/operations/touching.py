"""Which turns changed a path: comparisons of neighbouring states, restricted to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.errors import UsageError
from crabrt.journal import TurnRow
from crabrt.workspace import diff_roots


class Touching:
    """Compares the turns of a run that may go on. One thread at a time."""

    def __init__(self, reader: ObjectReader, workspace: bytes, paths: Sequence[bytes]) -> None:
        """Args and raises: as of `touching`."""
        for path in paths:
            if path.startswith((b"/", b"../")) or path == b"..":
                raise UsageError(
                    "that path is outside the workspace",
                    where=path.decode("utf-8", "replace"),
                    hint=f"the workspace is {workspace.decode('utf-8', 'replace')}",
                )
        self._reader = reader
        self._scope = [b"" if path == b"." else path for path in paths]
        self._roots: dict[int, ObjectId] = {}  # in turn order
        self._ahead: list[tuple[int, ObjectId, ObjectId]] = []  # likewise

    def take(self, turns: Iterable[TurnRow], first: int = 0) -> None:
        """Take in `turns`, to be compared next; what was known from turn `first` on is forgotten.

        Args:
            turns: all that there are from `first` on, in turn order.
            first: the earliest turn that is new, or not as it was.
        """
        while self._roots and next(reversed(self._roots)) >= first:
            self._roots.popitem()
        while self._ahead and self._ahead[-1][0] >= first:
            self._ahead.pop()
        before = next(reversed(self._roots.values()), None)
        for turn in turns:
            if not turn.restorable or turn.root is None:
                continue
            base = self._roots.get(turn.base, before)
            if base is not None:
                self._ahead.append((turn.turn, base, turn.root))
            self._roots[turn.turn] = before = turn.root

    def __iter__(self) -> Iterator[tuple[int, bool]]:
        """The turns that were taken in and not compared yet, the latest first; see `touching`."""
        while self._ahead:
            turn, base, root = self._ahead.pop()
            found = diff_roots(self._reader, base, root, self._scope) if base != root else ()
            yield turn, any(True for _ in found)


def touching(
    reader: ObjectReader, workspace: bytes, turns: Iterable[TurnRow], paths: Sequence[bytes]
) -> Iterator[tuple[int, bool]]:
    """For each turn, the latest first: its number, and whether it changed anything at `paths`.

    A turn changed what its state has otherwise than that of its base turn. One whose own or whose
    base's files were given up counts by the next states there are on either side of it, so a
    neighbour may be named instead.

    Args:
        reader: the store.
        workspace: where the turns happened, for the error.
        turns: of one run, in turn order.
        paths: relative to the workspace, raw bytes.

    Raises:
        UsageError: a path is outside the workspace; at once, before anything is read.
        DamagedObject: a tree cannot be read.
    """
    found = Touching(reader, workspace, paths)
    found.take(turns)
    return iter(found)
