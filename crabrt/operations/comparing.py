"""What differs between two states, one of which may be the workspace as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from crabrt.core.config import Config
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.operations.scratch import ScratchWriter
from crabrt.operations.targets import State
from crabrt.store import Store
from crabrt.workspace import Change, Tracker, Workspace, diff_roots


@dataclass(frozen=True)
class Comparison:
    """Two roots and a reader that has both.

    Attributes:
        before, after: ids of the roots.
        reader: for `changes`, and for the content of what changed.
        not_captured: paths of the workspace that could not be looked at, and why.
    """

    before: ObjectId
    after: ObjectId
    reader: ObjectReader
    not_captured: tuple[tuple[bytes, str], ...] = ()

    def changes(self, paths: Sequence[bytes] = ()) -> Iterator[Change]:
        """The differences, in path order.

        Raises:
            DamagedObject: a tree cannot be read.
        """
        return diff_roots(self.reader, self.before, self.after, paths)


def compare_states(store: Store, before: State, after: State) -> Comparison:
    """Two recorded states."""
    return Comparison(before.root, after.root, store)


def turn_changes(store: Store, index: RunIndex, run: RunRow, turn: TurnRow) -> tuple[Change, ...]:
    """What `turn` changed in the files, in path order; empty where either end of it is not kept.

    Raises:
        DamagedObject: a tree cannot be read.
    """
    if turn.base == turn.turn or turn.root is None or turn.thinned_ns:
        return ()
    base = index.turns(run.run, turn.base, turn.base)
    if not base or base[0].root is None or base[0].thinned_ns:
        return ()
    return tuple(diff_roots(store, base[0].root, turn.root))


@contextmanager
def compare_with_workspace(
    store: Store, before: State, workspace: Workspace, config: Config
) -> Iterator[Comparison]:
    """A recorded state and the workspace as it is; the comparison is good inside the ``with``.

    The workspace is scanned and read into a scratch file; store and index stay as they are.

    Raises:
        WorkspaceRefused: the workspace is huge, and not forced.
        NotFound: it is gone.
        Unprotected: directories were moved while they were read.
    """
    tracker = Tracker(
        workspace,
        huge_files=config.huge_files,
        huge_bytes=config.huge_bytes,
        force=config.force,
    )
    tracker.load(store)
    with ScratchWriter(store) as scratch:
        snapshot = tracker.capture(tracker.scan(), scratch)
        yield Comparison(before.root, snapshot.root, scratch, snapshot.not_captured)
