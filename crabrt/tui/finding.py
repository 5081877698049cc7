"""Which turns fit a filter, found in steps while the run goes on. No terminal here."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crabrt.errors import CrabError, NotFound
from crabrt.timeline.filtering import Filter, unmet
from crabrt.timeline.timeline import Timeline
from crabrt.tui.sources import Source

if TYPE_CHECKING:
    from crabrt.timeline.searching import TextSearch, TouchSearch

_SLICE_S = 0.05
_LOOKED_AT_ONCE = 128
_AGAIN_S = 2.0  # what was looked through is looked through again at most so often


@dataclass(frozen=True, slots=True)
class Fitting:
    """How far a `Finder` is.

    Attributes:
        numbers: of the turns that fit so far, ascending.
        done: every turn has been looked at.
        missed: how many turns may fit as well: what they changed cannot be looked through.
        problem: what could not be looked through, in words; else empty.
    """

    numbers: tuple[int, ...] = ()
    done: bool = False
    missed: int = 0
    problem: str = ""


class Finder(Protocol):
    """Finds turns of a run. Any thread may ask."""

    def step(self, state: Timeline) -> Fitting:
        """Go on for a moment with the run as it is now."""

    def changed(self, states: Sequence[Timeline]) -> None:
        """States that came since the last call: look again at what changed in them.

        `Timeline.changed` is told from one state to the next, so all of them are needed.
        """


@dataclass(slots=True)
class _Look:
    """A look through the paths that a turn changed.

    Attributes:
        turn: which.
        paths: those that have not been looked at.
        missing: what has not been met in them.
    """

    turn: int
    paths: Iterator[bytes]
    missing: tuple[bytes, ...]


class FilterFinder:
    """Finds the turns that fit a filter. Any thread may ask."""

    def __init__(self, source: Source, state: Timeline, wanted: Filter) -> None:
        """Args: where to read; the run as it is now; the filter."""
        self._lock = threading.Lock()
        self._source = source
        self._run = state.run
        self._wanted = wanted
        self._fits: dict[int, bool | None] = {}  # None: nobody can tell
        self._look: _Look | None = None
        self._revision, self._live = state.revision, state.live
        self._search: TextSearch | None = None
        self._searched = (-1, -_AGAIN_S)  # the run's last entry then, and when that was
        self._unread = self._problem = ""

    def step(self, state: Timeline) -> Fitting:
        """See `Finder`."""
        with self._lock:
            return self._step(state)

    def _step(self, state: Timeline) -> Fitting:
        until = time.monotonic() + _SLICE_S
        ahead = (number for number in state.rows.numbers if number not in self._fits)
        for number in ahead:
            if not self._decide(state, number, until) or time.monotonic() > until:
                break
        searched = not self._wanted.text or self._look_for_text(state)
        looked = all(number in self._fits for number in state.rows.numbers)
        said = self._search.found.turns if self._search is not None else frozenset()
        near = [one for one in state.rows.numbers if not self._wanted.text or one in said]
        numbers = tuple(number for number in near if self._fits.get(number))
        missed = sum(self._fits.get(number, False) is None for number in near)
        return Fitting(numbers, looked and searched, missed, self._problem or self._unread)

    def changed(self, states: Sequence[Timeline]) -> None:
        """See `Finder`."""
        with self._lock:
            for state in states:
                follows = state.revision == self._revision + 1 and state.live == self._live
                if state.changed is None or not follows:
                    self._fits.clear()
                    self._look = None
                for number in state.changed or ():
                    self._fits.pop(number, None)
                    if self._look is not None and self._look.turn == number:
                        self._look = None
                self._revision, self._live = state.revision, state.live

    def _decide(self, state: Timeline, number: int, until: float) -> bool:
        """Whether it is known by now if a turn fits."""
        row = state.rows.at(number)
        if row is None or not self._wanted.fits(row):
            self._fits[number] = False
            return True
        fits = self._wanted.fits_paths(row)
        if fits is None:
            return self._look_through(state, number, until)
        self._fits[number] = fits
        return True

    def _look_through(self, state: Timeline, number: int, until: float) -> bool:
        """Go on asking the trees of a turn; whether they have told."""
        try:
            if self._look is None or self._look.turn != number:
                paths = self._source.reader(self._run).paths_changed(state.rows, number)
                self._look = _Look(number, paths, self._wanted.paths)
            look = self._look
            while look.missing:
                some = list(itertools.islice(look.paths, _LOOKED_AT_ONCE))
                look.missing = unmet(look.missing, some)
                if len(some) < _LOOKED_AT_ONCE:
                    break
                if time.monotonic() > until:
                    return False
            self._fits[number] = not look.missing
        except NotFound:  # the files are not kept
            self._fits[number] = None
        except CrabError as error:
            self._fits[number] = None
            self._unread = str(error)
        self._look = None
        return True

    def _look_for_text(self, state: Timeline) -> bool:
        """Go on looking for the text; whether all that there is now has been looked through."""
        entry = state.view.updated_ns
        search = self._search
        if search is None or search.found.problems:
            if time.monotonic() < self._searched[1] + _AGAIN_S:
                return True
            from crabrt.timeline.searching import TextSearch  # noqa: PLC0415 - see `sources`

            self._searched = (entry, time.monotonic())
            try:
                search = self._search = TextSearch(self._source.store, self._run, self._wanted.text)
            except CrabError as error:
                self._problem = str(error)
                return True
        elif search.found.done and self._searched[0] != entry:
            search.go_on()
            self._searched = (entry, time.monotonic())
        found = search.step(_SLICE_S)
        self._problem = found.problems[0].message if found.problems else ""
        return found.done


class TouchFinder:
    """Finds the turns that changed a path, the latest first. Any thread may ask."""

    def __init__(self, source: Source, path: bytes) -> None:
        """Args: where to read; the path, relative to the workspace."""
        self._lock = threading.Lock()
        self._source = source
        self._path = path
        self._search: TouchSearch | None = None
        self._begun_s = -_AGAIN_S
        self._first: int | None = 0  # the earliest turn that is not as it was looked at
        self._revision = -1

    def step(self, state: Timeline) -> Fitting:
        """See `Finder`."""
        with self._lock:
            try:
                return self._step(state)
            except CrabError as error:
                return Fitting(done=True, problem=str(error))

    def changed(self, states: Sequence[Timeline]) -> None:
        """See `Finder`."""
        with self._lock:
            for state in states:
                if state.revision <= self._revision:  # it began with that one, or a later one
                    continue
                told = state.changed if state.revision == self._revision + 1 else None
                if told is None:
                    self._first = 0
                elif told:
                    self._first = min(told) if self._first is None else min(self._first, *told)
                self._revision = state.revision

    def _step(self, state: Timeline) -> Fitting:
        search = self._search
        if search is None or search.found.problems:
            if time.monotonic() < self._begun_s + _AGAIN_S:
                return self._fitting(search)
            from crabrt.timeline.searching import TouchSearch  # noqa: PLC0415 - see `sources`

            self._begun_s = time.monotonic()
            search = self._search = TouchSearch(self._source.store, state, [self._path])
            self._first, self._revision = None, state.revision
        elif self._first is not None:
            search.go_on(state, self._first)
            self._first = None
        search.step(_SLICE_S)
        return self._fitting(search)

    def _fitting(self, search: TouchSearch | None) -> Fitting:
        if search is None:
            return Fitting(done=True)
        found = search.found
        problem = found.problems[0].message if found.problems else ""
        return Fitting(tuple(sorted(found.turns)), found.done, problem=problem)
