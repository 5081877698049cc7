"""Which turns changed a path: comparisons of neighbouring states, restricted to it."""

from __future__ import annotations

from collections.abc import Sequence

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.errors import UsageError
from crabrt.journal import RunRow, TurnRow
from crabrt.workspace import diff_roots


def turns_touching(
    reader: ObjectReader, run: RunRow, turns: Sequence[TurnRow], paths: Sequence[bytes]
) -> frozenset[int]:
    """The numbers of those of `turns` whose state differs at `paths` from that of their base turn.

    A turn whose own or whose base's files were given up counts by the next states there are on
    either side of it, so it may be listed with a neighbour.

    Args:
        reader: the store.
        run: whose turns they are.
        turns: in turn order.
        paths: relative to the workspace, raw bytes.

    Raises:
        UsageError: a path is outside the workspace.
        DamagedObject: a tree cannot be read.
    """
    for path in paths:
        if path.startswith((b"/", b"../")) or path == b"..":
            raise UsageError(
                "that path is outside the workspace",
                where=path.decode("utf-8", "replace"),
                hint=f"the workspace is {run.workspace.decode('utf-8', 'replace')}",
            )
    scope = [b"" if path == b"." else path for path in paths]
    roots: dict[int, ObjectId] = {}
    touched: set[int] = set()
    before: ObjectId | None = None
    for turn in turns:
        if not turn.restorable or turn.root is None:
            continue
        base = roots.get(turn.base, before)
        if base is not None and any(True for _ in diff_roots(reader, base, turn.root, scope)):
            touched.add(turn.turn)
        roots[turn.turn] = before = turn.root
    return frozenset(touched)
