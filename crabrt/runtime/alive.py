"""What is alive, on its way into a checkpoint: the second stage stores images and names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.config import Config
from crabrt.core.entries import Checkpoint
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectReader
from crabrt.core.processes import ImageSet, ProcessState, ProcessTree
from crabrt.errors import CrabError
from crabrt.inspector.lasting import shown
from crabrt.operations.alive import imaging
from crabrt.process import spool
from crabrt.process.criu import put_images
from crabrt.process.custody import Custody
from crabrt.process.imaging import Imager, Taken
from crabrt.process.state import put_state
from crabrt.runtime import spooled
from crabrt.store import StoreWriter

_VANISHED: Final = "somebody removed its image before that was stored"
_GIVEN_UP: Final = "the image that it had at an earlier turn could not be stored"


def imager(config: Config, reader: ObjectReader) -> Imager | str:
    """Who takes images, or why nobody does; to find out may take a moment.

    Args:
        config: says who.
        reader: has what was stored.
    """
    by = imaging(config)
    return by if isinstance(by, str) else Imager(by, reader)


@dataclasses.dataclass(frozen=True, eq=False)
class Alive:
    """What was alive when a state was captured.

    Attributes:
        custody: to be told which images cannot be stored.
        taken: what is known of them.
    """

    custody: Custody
    taken: Taken

    def put(self, entry: Checkpoint, writer: StoreWriter) -> Checkpoint:
        """Store it; `entry`, which names it.

        Raises:
            StoreUnavailable, NotImaged: it cannot be stored.
        """
        with writer.apart() as stored:
            root, trees = self._put(writer)
        return msgspec.structs.replace(
            entry,
            processes=root,
            unimaged=unimaged(trees),
            bytes_stored=entry.bytes_stored + stored.size_bytes,
        )

    def _put(self, writer: StoreWriter) -> tuple[ObjectId, list[ProcessTree]]:
        """The root of what was alive, and the trees with what is known of their images now."""
        images: dict[int, ImageSet] = {}
        trees = []
        there = spooled.images_in(self.taken.into)
        for each in self.taken.trees:
            tree, pid = each, each.top.pid
            is_new, image = pid in self.taken.directories, self.taken.images.get(pid)
            if is_new and pid in there:
                images[pid] = self._stored(tree, writer)
            elif is_new:
                tree = msgspec.structs.replace(each, imaged=False, why_not=_VANISHED)
            elif image is not None and image.stored is not None:  # the turn before was first
                images[pid] = image.stored
            elif tree.imaged:
                tree = msgspec.structs.replace(each, imaged=False, why_not=_GIVEN_UP)
            trees.append(tree)
        taken = self.taken
        state = ProcessState(boot_id(), tuple(trees), taken.shells, taken.workspace)
        root = put_state(state, images, writer)
        for pid, stored in images.items():
            self.taken.images[pid].stored = stored
        return root, trees

    def _stored(self, tree: ProcessTree, writer: StoreWriter) -> ImageSet:
        try:
            return put_images(self.taken.directories[tree.top.pid], writer)
        except CrabError as error:  # what is lost with it is this turn; the next ones need no image
            self.custody.refused(tree, f"its image could not be stored: {error.message}")
            raise

    def forget(self) -> None:
        """It is durable, or will never be: what lies in the spool is not needed any more."""
        if self.taken.into is not None:
            spool.drop(self.taken.into)


def unimaged(trees: Iterable[ProcessTree]) -> tuple[str, ...]:
    """What of `trees` does not come back, and why; a line for each."""
    lines = []
    for tree in trees:
        name = shown(tree.top)
        if not tree.imaged:
            lines.append(f"{name} has no image: {tree.why_not}")
        lines += [f"{name}: {what}" for what in tree.lost]
    return tuple(lines)
