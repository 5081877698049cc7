"""Where the bytes of a store are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from crabrt.core.ids import ObjectKind
from crabrt.store import condemned, layout
from crabrt.store.reachable import ObjectRef, mark
from crabrt.store.store import Store


class KindUsage(msgspec.Struct, frozen=True):
    """Objects of one kind: how many, their bytes before and after compression."""

    objects: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Where the bytes are.

    Attributes:
        packs: how many; `pack_bytes`: their length, frames and indexes included.
        kinds: by the name of the kind ("data", "tree", "list", "root"); copies count each.
        catalog_bytes: of ``chunks.sqlite`` and its log.
        condemned_bytes: of packs that gc is about to remove.
        damaged_bytes: of what `repair` set aside.
        live_bytes, dead_bytes: stored bytes that the roots reach, and do not; None without roots.
    """

    packs: int
    pack_bytes: int
    kinds: dict[str, KindUsage]
    catalog_bytes: int
    condemned_bytes: int
    damaged_bytes: int
    live_bytes: int | None = None
    dead_bytes: int | None = None


def usage(store: Store, roots: Callable[[], Iterable[ObjectRef]] | None = None) -> Usage:
    """Add up the store, and with `roots` what of it is still needed.

    Raises:
        StoreUnavailable: a pack cannot be read.
        DamagedObject: `roots` are given and something they reach is unreadable.
    """
    home = store.home
    live = None if roots is None else mark(store, roots())
    names = list(layout.list_packs(home))
    counts = {kind: [0, 0, 0] for kind in ObjectKind}
    live_bytes = dead_bytes = 0
    for name in names:
        for item in store.index.durable_items(name):
            count = counts[ObjectKind(item.at.kind)]
            count[0] += 1
            count[1] += item.at.raw
            count[2] += item.at.stored
            if live is None:
                continue
            if item.id in live:
                live.discard(item.id)  # a second copy is dead
                live_bytes += item.at.length
            else:
                dead_bytes += item.at.length
    numbers = condemned.lists(home)
    listed = frozenset[str]().union(*(condemned.read_list(home, n) for n in numbers))
    return Usage(
        packs=len(names),
        pack_bytes=sum(_size(layout.pack_path(home, name)) for name in names),
        kinds={kind.name.lower(): KindUsage(*count) for kind, count in counts.items()},
        catalog_bytes=sum(_size(home / f"{layout.CATALOG}{end}") for end in ("", "-wal", "-shm")),
        condemned_bytes=sum(_size(layout.pack_path(home, name)) for name in listed),
        damaged_bytes=_tree_size(home / layout.DAMAGED),
        live_bytes=None if roots is None else live_bytes,
        dead_bytes=None if roots is None else dead_bytes,
    )


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _tree_size(path: Path) -> int:
    try:
        return sum(_size(path / name) for name in os.listdir(path))
    except FileNotFoundError:
        return 0
