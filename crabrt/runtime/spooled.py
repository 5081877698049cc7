"""What lies in a spool until a checkpoint is durable, so that a later process can finish it.

Beside the images, a file says what was alive, and which files its images are. It is written when
all images are: a spool where all of that is there is whole, and one of another boot is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.core.processes import ImageSet, ProcessState, ProcessTree
from crabrt.errors import DamagedObject, StoreUnavailable
from crabrt.process.criu import put_images
from crabrt.process.imaging import Taken
from crabrt.process.state import image_of, put_state, read_state

_STATE: Final = "state"
_BEING_WRITTEN: Final = "state.new"


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """What a spool says of itself.

    Attributes:
        state: what was alive.
        images: the files of those images that lie here and how long each is, by the number of the
            topmost process.
    """

    state: ProcessState
    images: dict[int, dict[str, int]]

    @property
    def rests(self) -> bool:
        """Whether images of a checkpoint before belong to it: of who slept since."""
        return any(tree.imaged and tree.top.pid not in self.images for tree in self.state.trees)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Spooled).decode


def noted(taken: Taken, into: Path) -> Taken:
    """Note in the spool `into` what was alive; `taken`, which lies there.

    Raises:
        StoreUnavailable: that cannot be written.
    """
    try:
        images = {pid: _lengths(path) for pid, path in taken.directories.items()}
        state = ProcessState(boot_id(), taken.trees, taken.shells, taken.workspace)
        (into / _BEING_WRITTEN).write_bytes(_encode(Spooled(state, images)))
        os.rename(into / _BEING_WRITTEN, into / _STATE)
    except OSError as error:
        raise StoreUnavailable(
            f"the images cannot be spooled: {error.strerror}", where=str(into)
        ) from error
    return dataclasses.replace(taken, into=into)


def is_whole(spool: bytes, *, chained: bool = True) -> bool:
    """Whether what lies in `spool` can be finished; an empty one needs nothing.

    Args:
        spool: where.
        chained: whether the checkpoint before it is there, or can be finished as well.
    """
    if not spool:
        return True
    found = _read(Path(os.fsdecode(spool)))
    return found is not None and (chained or not found.rests)


def put(spool: bytes, before: bytes, writer: ObjectWriter) -> ObjectId:
    """Store what lies in `spool`; the id of its root.

    Args:
        spool: is whole.
        before: the root of what was alive at the checkpoint before: it has the images of those that
            slept since.
        writer: takes it.

    Raises:
        DamagedObject: something is missing.
        StoreUnavailable, NotImaged: it cannot be stored.
    """
    directory = Path(os.fsdecode(spool))
    found = _read(directory)
    if found is None:
        raise DamagedObject("the images of this state are not there any more", where=str(directory))
    earlier = read_state(ObjectId(before), writer) if before else ProcessState()
    known = {tree.top.identity: tree for tree in earlier.trees if tree.imaged}
    images: dict[int, ImageSet] = {}
    trees: list[ProcessTree] = []
    for tree in found.state.trees:
        pid, kept = tree.top.pid, tree
        if pid in found.images:
            images[pid] = put_images(directory / str(pid), writer)
        elif tree.imaged and tree.top.identity in known:
            images[pid] = image_of(ObjectId(before), known[tree.top.identity], writer)
        elif tree.imaged:
            why_not = "the checkpoint that had its image never became durable"
            kept = msgspec.structs.replace(tree, imaged=False, why_not=why_not)
        trees.append(kept)
    return put_state(msgspec.structs.replace(found.state, trees=tuple(trees)), images, writer)


def images_in(directory: Path | None) -> set[int]:
    """The numbers of the topmost processes whose images lie in a spool, and are whole."""
    if directory is None:
        return set()
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        images = _decode((directory / _STATE).read_bytes()).images
        return {pid for pid, files in images.items() if _are_there(directory, {pid: files})}
    return set()


def _lengths(directory: Path) -> dict[str, int]:
    return {one.name: one.stat(follow_symlinks=False).st_size for one in os.scandir(directory)}


def _read(directory: Path) -> Spooled | None:
    """What a whole spool says; None if it is not whole."""
    try:
        found = _decode((directory / _STATE).read_bytes())
        if found.state.boot == boot_id() and _are_there(directory, found.images):
            return found
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        pass
    return None


def _are_there(directory: Path, images: Mapping[int, Mapping[str, int]]) -> bool:
    try:
        return all(_lengths(directory / str(pid)) == files for pid, files in images.items())
    except FileNotFoundError:
        return False
