"""What a run has alive, looked after from its first turn to its last.

Used by one thread at a time, the one that looks at the files, but for `refused`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from crabrt.core.processes import ProcessTree
from crabrt.process import subreaper
from crabrt.process.beside.door import Door
from crabrt.process.criu.calling import never
from crabrt.process.family import Family, Identity, Intervals
from crabrt.process.finding import Finder
from crabrt.process.imaging import Imager, Taken
from crabrt.process.respawning.recording import with_services
from crabrt.process.shells import Shells
from crabrt.process.sighting import Sighting, again, sight
from crabrt.process.standstill import Standstill

ESCAPES: Final = "processes that left the family of the loop and carry no CRAB_RUN of the run"

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot(Generic[T]):
    """Files, and what is alive beside them.

    Attributes:
        files: what was asked for.
        alive: who, to be compared with what was `left` before; None where nobody looks.
        left: the same, after images were taken: the next one is compared with this.
        exact: whether nothing of the run moved while the files were copied.
        taken: what is known of images.
    """

    files: T
    alive: Sighting | None = None
    left: Sighting | None = None
    exact: bool = True
    taken: Taken = field(default_factory=Taken)


class Custody:
    """The processes of the runs in one workspace.

    Args:
        tracks: whether anybody looks at all.
        imager: gives who takes images, or says why nobody can. It is asked once, when there is
            something to image: to find out takes a moment.
        workspace: where the runs work.

    Attributes:
        last: what was seen last.
        shells: the loop's own.
        unobserved: what the last snapshot could not see, for people.
    """

    def __init__(
        self, *, tracks: bool, imager: Callable[[], Imager | str], workspace: bytes = b""
    ) -> None:
        self._tracks = tracks
        self._finder = Finder(imager)
        self._family = Family(os.getpid(), workspace)
        self._keeps_orphans = tracks and subreaper.hold()
        self._unasked: Intervals | None = ()
        self.last = Sighting()
        self.shells = Shells()
        self._workspace = workspace
        self._door = Door(workspace)
        self._is_whole = True
        self.unobserved: tuple[str, ...] = ()
        if tracks:
            try:
                self._family.settle()
            except OSError as error:
                self.last = Sighting(unseen=str(error))

    def snapshot(
        self,
        tools: Intervals | None,
        copy: Callable[[], T],
        spool: Callable[[tuple[ProcessTree, ...]], Path],
        until: Callable[[], float] = never,
    ) -> Snapshot[T]:
        """Copy the files together with what is alive.

        Args:
            tools: when tools ran since the last look; None: what began since then is the run's.
            copy: copies the files; is called again if something moved meanwhile, and then finds
                what that changed.
            spool: gives a directory for images of trees; it is called if any are taken.
            until: by when images have to be there as things stand, as for `Imager.take`.
        """
        try:
            return self._snapshot(tools, copy, spool, until)
        finally:
            self.unobserved = () if self._is_whole else (ESCAPES,)
            self._is_whole = True

    def _snapshot(
        self,
        tools: Intervals | None,
        copy: Callable[[], T],
        spool: Callable[[tuple[ProcessTree, ...]], Path],
        until: Callable[[], float],
    ) -> Snapshot[T]:
        shells = self.shells.take() if self._tracks else ()  # to be asked, they have to run
        before = self.look(tools)
        files = copy()
        if before is None:
            return Snapshot(files)
        if not before.state.trees:
            after = self.look(tools) if before.unsure else before
            assert after is not None
            exact = not before.unseen and _slept_beside(before, after)
            return Snapshot(files, before, before, exact=exact)
        after = self.look(tools)
        assert after is not None
        imager = self._finder.get(until)
        if isinstance(imager, str) or not imager.wants(after):
            known = _unimaged(after, imager) if isinstance(imager, str) else imager.known(after)
            known = _with_services(replace(known, shells=shells, workspace=self._workspace))
            if _stood_still(before, after):
                return Snapshot(files, after, after, exact=True, taken=known)
            began = time.monotonic()
            files, exact = self._copied_still(tools, copy)
            known = replace(known, frozen_ms=(time.monotonic() - began) * 1e3)
            return Snapshot(files, after, self.look(tools), exact, known)
        told = imager.doubted(after)
        again: list[T] = []
        into = spool(after.state.trees)
        here = self._workspace
        taken = imager.take(after, into, lambda: again.append(copy()), until, workspace=here)
        last = self.look(tools) or after
        held = {tree.top.pid for tree in after.state.trees if tree.top.pid in taken.directories}
        exact = _slept_beside(after, last) and not after.unseen
        exact = exact and all(
            tree.top.pid in held or _slept(tree, after, last) for tree in after.state.trees
        )
        taken = _with_services(replace(taken, shells=shells, workspace=self._workspace))
        return Snapshot(again[-1], told, last, exact, taken)

    def _copied_still(self, tools: Intervals | None, copy: Callable[[], T]) -> tuple[T, bool]:
        """Copy while all of the run is stopped; and whether that worked."""

        def alive() -> Iterable[int]:
            seen = self.look(tools)
            return [one.pid for one in seen.processes] if seen is not None else []

        with Standstill() as still:
            stands = still.stop_all(alive)
            before = again(self.last)
            files = copy()
            return files, stands and _slept_beside(before, again(before))

    def refused(self, tree: ProcessTree, why_not: str) -> None:
        """The image of a tree cannot be stored."""
        if self._finder.found is not None:
            self._finder.found.refused(tree, why_not)

    def forget(self) -> None:
        """What was stored since the last durable checkpoint may be lost."""
        if self._finder.found is not None:
            self._finder.found.forget()

    def adopt(self, processes: Iterable[Identity]) -> None:
        """These belong to the run, whoever started them."""
        back = list(processes)
        self._family.adopt(back)
        self._door.find(back)
        self.shells.within = self._door.within

    def close(self) -> None:
        """Look after nobody any more. Whoever lives goes on."""
        self._family.close()
        self._door.close()
        if self._keeps_orphans:
            self._keeps_orphans = False
            subreaper.release()

    def look(self, tools: Intervals | None) -> Sighting | None:
        """Who is alive now; None if nobody looks. `tools` as in `snapshot`."""
        if not self._tracks:
            return None
        unasked = self._unasked
        tools = None if tools is None or unasked is None else (*unasked, *tools)
        try:
            alive = self._family.look(tools)
        except OSError as error:
            self._unasked = tools  # what began then is judged when it can be seen
            self.last = Sighting(self.last.state, unseen=str(error))
        else:
            self._unasked = ()
            self._is_whole = self._is_whole and self._family.is_whole
            self.last = sight(alive, self.last, self._workspace, self._family.unsure)
        return self.last


def _unimaged(alive: Sighting, why_not: str) -> Taken:
    trees = alive.state.trees
    return Taken(tuple(msgspec.structs.replace(tree, why_not=why_not) for tree in trees))


def _with_services(taken: Taken) -> Taken:
    """With what can be started again of those that have no image."""
    return replace(taken, trees=with_services(taken.trees))


def _stood_still(before: Sighting, after: Sighting) -> bool:
    """Whether nobody of the run moved between two looks."""
    same = {one.identity for one in before.processes} == {one.identity for one in after.processes}
    same = same and _slept_beside(before, after)
    return same and not after.unseen and all(_slept(t, before, after) for t in after.state.trees)


def _slept_beside(before: Sighting, after: Sighting) -> bool:
    """Whether those did not run of whom nobody can tell whether they are the run's."""
    return all(after.slept_since(before, one.identity) for one in after.unsure)


def _slept(tree: ProcessTree, before: Sighting, after: Sighting) -> bool:
    return all(after.slept_since(before, one.identity) for one in tree.processes)
