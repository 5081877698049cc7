"""Images of what a run has alive: which are needed, and taken while its files are copied.

A tree whose processes have all slept since their last image needs none. The others stand still
together: CRIU holds one tree after the other, then the files are copied, then all go on. So files
and images are of one instant.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from crabrt.core.ports import ObjectReader
from crabrt.core.processes import FileHeld, ImageSet, KeptShell, LastingProcess, ProcessTree
from crabrt.process import sighting, table
from crabrt.process.criu import Cause, Criu, NotImaged, dump
from crabrt.process.criu.calling import Limit, never
from crabrt.process.criu.holding import Hold
from crabrt.process.criu.proving import same_memory, same_memory_as_files
from crabrt.process.family import Identity
from crabrt.process.holdings import HeldFile, files_to_match, held_files
from crabrt.process.severing import would_be_lost
from crabrt.process.sighting import Sighting

LIMIT_S: Final = 30.0
_SETTLES_S: Final = 0.05
_POLL_S: Final = 0.001
_RETRY_MOST: Final = 64
"""A tree that cannot be imaged is tried again after 1, 2, 4, ... looks at it, at most so many."""
_RETRY_SLOW: Final = 4
"""One whose image took longer than the loop waits costs that time again: it rests longer first."""


@dataclass(eq=False)
class Image:
    """An image that was taken, on its way into the store.

    Attributes:
        directory: where it lies until then; it is dropped afterwards, or if it is given up.
        stored: what it is in the store, once it is there.
    """

    directory: Path
    stored: ImageSet | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it is there, in either place."""
        is_spooled = self.directory.is_dir()  # asked first: it goes once it is stored
        return is_spooled or self.stored is not None


@dataclass
class _Known:
    """What is known of a tree by its last attempt.

    Attributes:
        tree: as it was then; `imaged` or not.
        pulses: of its processes, when they had gone on; None of one that still ran then.
        image: of it; None: there is none, or it may be lost.
        files: what they held when they had gone on.
        wait: how many rounds to skip before the next attempt.
        again: the first round that is not skipped.
        is_proved: whether they have done nothing since but sleep (see ``criu.proving``).
    """

    tree: ProcessTree
    pulses: Mapping[Identity, int | None] = field(default_factory=dict)
    image: Image | None = None
    files: frozenset[HeldFile] = frozenset()
    wait: int = 0
    again: int = 0
    is_proved: bool = False


@dataclass(frozen=True)
class Taken:
    """What came of one round.

    Attributes:
        trees: all that is alive, each with what is known of its image.
        directories: of the images that were taken now, by the number of the topmost process.
        images: those, and those of before that still hold, likewise.
        frozen_ms: how long somebody stood still.
        into: where the directories lie.
        is_full: whether an image failed for want of room there.
        shells: the loop's own, among the trees.
        workspace: where the run works; empty: nobody knows.
    """

    trees: tuple[ProcessTree, ...] = ()
    directories: Mapping[int, Path] = field(default_factory=dict)
    images: Mapping[int, Image] = field(default_factory=dict)
    frozen_ms: float = 0.0
    into: Path | None = None
    is_full: bool = False
    shells: tuple[KeptShell, ...] = ()
    workspace: bytes = b""


class Imager:
    """Takes images. Used by one thread at a time, but for `refused`.

    Another thread stores them meanwhile, and says so (`Image.stored`).

    Args:
        criu: by what.
        reader: has the images that are stored.
    """

    def __init__(self, criu: Criu, reader: ObjectReader) -> None:
        self._criu = criu
        self._reader = reader
        self._known: dict[Identity, _Known] = {}
        self._rounds = 0

    def wants(self, alive: Sighting) -> bool:
        """Whether any of these trees needs an image that could be had."""
        return any(self._is_due(tree, alive) for tree in alive.state.trees)

    def take(
        self,
        alive: Sighting,
        into: Path,
        copy: Callable[[], None],
        until: Callable[[], float] = never,
        *,
        workspace: bytes = b"",
    ) -> Taken:
        """Image the trees that need it, and call `copy` while they stand still.

        Args:
            alive: as they were seen a moment ago.
            into: where the images go, a directory for each; made, and the caller's afterwards.
            copy: is called once, whatever comes of the images; what it raises goes up.
            until: by when images have to be there as things stand, by ``time.monotonic``: somebody
                may come to wait for `copy`. Asked again and again.
            workspace: where the run works: what they hold there is recorded with their images.
        """
        due = [tree for tree in alive.state.trees if self._is_due(tree, alive)]
        self._rounds += 1
        directories = {tree.top.pid: into / str(tree.top.pid) for tree in due}
        tops = {tree.top.pid: tree for tree in due}
        round_ = _Round(self._criu, directories, until)
        files: dict[int, tuple[FileHeld, ...]] = {}

        def still() -> None:
            for tree in due:
                pids = [one.pid for one in tree.processes]
                files[tree.top.pid] = files_to_match(pids, workspace)
            copy()

        round_.run(due, still)
        gone = {pid for pid in round_.why_not if all(map(_has_ended, tops[pid].processes))}
        due = [tree for tree in due if tree.top.pid not in gone]
        alive = _without(alive, gone)
        done = _settled(alive)
        for tree in due:
            why_not = round_.why_not.get(tree.top.pid, "")
            held = () if why_not else files[tree.top.pid]
            self._learn(msgspec.structs.replace(tree, held=held), why_not, round_, done)
        now = {tree.top.identity for tree in alive.state.trees}
        self._known = {who: known for who, known in self._known.items() if who in now}
        taken = {pid: path for pid, path in directories.items() if pid not in round_.why_not}
        images = self._held(alive)
        where = into if alive.state.trees else None
        frozen_ms = round_.frozen_s * 1e3
        return Taken(self._told(alive), taken, images, frozen_ms, where, round_.is_full)

    def known(self, alive: Sighting) -> Taken:
        """The same where nothing is due."""
        self._rounds += 1
        return Taken(self._told(alive), images=self._held(alive))

    def refused(self, tree: ProcessTree, why_not: str) -> None:
        """The image of a tree cannot be stored: the next attempt may wait, the files cannot."""
        known = self._known.get(tree.top.identity)
        if known is not None:
            known.tree = msgspec.structs.replace(known.tree, imaged=False, why_not=why_not)
            known.wait = min(_RETRY_MOST, max(_RETRY_SLOW, 2 * known.wait))
            known.again = self._rounds + 1 + known.wait

    def forget(self) -> None:
        """What was stored may be lost: everybody is imaged anew."""
        for known in self._known.values():
            known.image = None

    def _is_due(self, tree: ProcessTree, alive: Sighting) -> bool:
        known = self._known.get(tree.top.identity)
        if known is None:
            return True
        if self._rounds < known.again:
            return False
        return not (self._is_proved(known, tree, alive) and known.files == _held_by(tree))

    def _is_proved(self, known: _Known, tree: ProcessTree, alive: Sighting) -> bool:
        """Whether it surely is what its last image is of."""
        image = known.image
        if image is None or not image.is_kept:
            return False
        if not known.is_proved:  # whoever was not at rest in time may be by now
            known.pulses = {
                who: alive.pulses.get(who) if pulse is None else pulse
                for who, pulse in known.pulses.items()
            }
        if not _slept(known, tree, alive):
            return False
        if not known.is_proved:
            numbers = {table.inner_number(one.pid): one.pid for one in tree.processes}
            known.is_proved = self._is_of(image, numbers) and _slept(
                known, tree, sighting.again(alive)
            )
        return known.is_proved

    def _is_of(self, image: Image, numbers: Mapping[int, int]) -> bool:
        """Whether the memory of processes is that of their image, wherever that lies."""
        if image.stored is None and same_memory_as_files(image.directory, numbers):
            return True
        stored = image.stored  # perhaps only now, and the directory went
        return stored is not None and same_memory(stored, numbers, self._reader)

    def doubted(self, alive: Sighting) -> Sighting:
        """`alive`, where those have run who were imaged and are not proved to have slept since."""
        pulses = dict(alive.pulses)
        for tree in alive.state.trees:
            known = self._known.get(tree.top.identity)
            if known is not None and known.pulses and not known.is_proved:
                pulses |= dict.fromkeys((one.identity for one in tree.processes), None)
        return replace(alive, pulses=pulses)

    def _learn(self, tree: ProcessTree, why_not: str, done: _Round, after: Sighting) -> None:
        who = tree.top.identity
        before = self._known.get(who)
        lost = tuple(done.lost.get(tree.top.pid, ()))
        tree = msgspec.structs.replace(tree, imaged=not why_not, why_not=why_not, lost=lost)
        if why_not:
            least = done.slow.get(tree.top.pid, 1)
            wait = min(_RETRY_MOST, max(least, 2 * before.wait if before is not None else 1))
            self._known[who] = _Known(tree, wait=wait, again=self._rounds + wait)
            return
        pulses = {one.identity: after.pulses.get(one.identity) for one in tree.processes}
        was_stored = before is not None and before.image is not None and before.image.stored
        rested = before.wait if before is not None and not was_stored else 0
        image = Image(done.directories[tree.top.pid])
        self._known[who] = _Known(tree, pulses, image, _held_by(tree), wait=rested)

    def _told(self, alive: Sighting) -> tuple[ProcessTree, ...]:
        """The trees, each with what is known of its image."""
        return tuple(self._with_image(tree) for tree in alive.state.trees)

    def _with_image(self, tree: ProcessTree) -> ProcessTree:
        known = self._known.get(tree.top.identity)
        if known is None:
            return tree
        was = known.tree
        return msgspec.structs.replace(
            tree, imaged=was.imaged, why_not=was.why_not, lost=was.lost, held=was.held
        )

    def _held(self, alive: Sighting) -> dict[int, Image]:
        held = {}
        for tree in alive.state.trees:
            known = self._known.get(tree.top.identity)
            if known is not None and known.image is not None:
                held[tree.top.pid] = known.image
        return held


def _slept(known: _Known, tree: ProcessTree, alive: Sighting) -> bool:
    """Whether none of `tree` ran since it had gone on."""
    return {one.identity for one in tree.processes} == set(known.pulses) and all(
        pulse is not None and alive.pulses.get(who) == pulse for who, pulse in known.pulses.items()
    )


def _held_by(tree: ProcessTree) -> frozenset[HeldFile]:
    found: frozenset[HeldFile] = frozenset()
    for one in tree.processes:
        with contextlib.suppress(OSError):  # it ended: its pulse, or the next look, says so
            found |= held_files(one.pid)
    return found


class _Round:
    """Several trees held together, one inside the hold of another."""

    def __init__(
        self, criu: Criu, directories: Mapping[int, Path], until: Callable[[], float]
    ) -> None:
        self._criu = criu
        self.directories = directories
        self._until = until
        self.why_not: dict[int, str] = {}
        self.slow: dict[int, int] = {}
        self.is_full = False
        self.lost: dict[int, list[str]] = {}
        self.frozen_s = 0.0

    def run(self, trees: Sequence[ProcessTree], copy: Callable[[], None]) -> None:
        if not trees:
            copy()
            return
        first, *rest = trees
        is_held = False

        def inside() -> None:
            nonlocal is_held
            is_held = True
            self.run(rest, copy)

        pid = first.top.pid
        began = time.monotonic()
        if not Limit(LIMIT_S, self._until).left_s:
            self.why_not[pid] = "the loop waited, and there was no time left"
            self.slow[pid] = _RETRY_SLOW
            self.run(rest, copy)
            return
        try:
            self.lost[pid] = would_be_lost(pid)
            dump(
                self._criu,
                pid,
                self.directories[pid],
                limit_s=LIMIT_S,
                until=self._until,
                own_namespace=first.namespace,
                hold=Hold(inside, LIMIT_S),
            )
        except NotImaged as error:
            self.why_not[pid] = error.message
            self.is_full |= error.cause is Cause.NO_SPACE
            if error.cause is Cause.TIME_LIMIT:
                is_stuck = time.monotonic() - began >= LIMIT_S
                self.slow[pid] = _RETRY_MOST if is_stuck else _RETRY_SLOW
        except OSError as error:
            if is_held:  # the copy's
                raise
            self.why_not[pid] = f"an image cannot be begun: {error.strerror or error}"
        if is_held:
            self.frozen_s = max(self.frozen_s, time.monotonic() - began)
        else:
            self.run(rest, copy)


def _has_ended(process: LastingProcess) -> bool:
    try:
        found = table.look(process.pid)
    except OSError:
        return False
    return found is None or found.ended or found.identity != process.identity


def _without(alive: Sighting, tops: Collection[int]) -> Sighting:
    """`alive` but for the trees of `tops`: they ended before there was an image of them."""
    kept = tuple(tree for tree in alive.state.trees if tree.top.pid not in tops)
    state = msgspec.structs.replace(alive.state, trees=kept)
    living = {one.identity for tree in kept for one in tree.processes}
    pulses = {who: pulse for who, pulse in alive.pulses.items() if who in living}
    return Sighting(state, pulses, alive.unseen, alive.unsure)


def _settled(alive: Sighting) -> Sighting:
    """What they are like once they have gone back to sleep, or do not."""
    until = time.monotonic() + _SETTLES_S
    while True:
        with contextlib.suppress(OSError):
            now = sighting.again(alive)
            if now.quiet or time.monotonic() > until:
                return now
        if time.monotonic() > until:
            return Sighting(alive.state)
        time.sleep(_POLL_S)
