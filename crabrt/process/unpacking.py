"""The images of a state, out of the store: read once, before anybody has to rely on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.processes import ProcessTree
from crabrt.errors import CrabError
from crabrt.process.criu import get_images
from crabrt.process.state import image_of


class Images:
    """Those of one state, unpacked into a directory. Used by one thread at a time.

    Args:
        root: of the state.
        reader: has it.
        into: a directory of its own; the caller's to drop.
    """

    def __init__(self, root: ObjectId, reader: ObjectReader, into: Path) -> None:
        self._root, self._reader, self._into = root, reader, into
        self._whole: dict[int, Path] = {}
        self._failed: dict[int, CrabError] = {}

    def of(self, tree: ProcessTree) -> Path:
        """The directory with the images of `tree`, read and checked by the first call for it.

        Raises:
            CrabError: they cannot be had, as the first call found: they are damaged, absent, or
                there is no room for them.
        """
        pid = tree.top.pid
        if pid in self._failed:
            raise self._failed[pid]
        if pid not in self._whole:
            directory = self._into / f"after-{pid}"
            try:
                image = image_of(self._root, tree, self._reader)
                get_images(image, directory, self._reader)
            except CrabError as error:
                self._failed[pid] = error
                raise
            self._whole[pid] = directory
        return self._whole[pid]

    def lacking(self, trees: Iterable[ProcessTree]) -> list[tuple[ProcessTree, CrabError]]:
        """Unpack the images of `trees`; those that cannot be had, and why."""
        found = []
        for tree in trees:
            if tree.imaged:
                try:
                    self.of(tree)
                except CrabError as error:
                    found.append((tree, error))
        return found


def size_of_images(root: ObjectId, trees: Iterable[ProcessTree], reader: ObjectReader) -> int:
    """How much the images of `trees` are, in bytes; without those that cannot be read."""
    total = 0
    for tree in trees:
        if tree.imaged:
            with contextlib.suppress(CrabError):  # who unpacks it says so
                total += image_of(root, tree, reader).size_bytes
    return total
