"""Which processes are a run's: those that its tools started, and all that descends from them.

The loop's own helpers (a server of tools that it talks to, a worker pool) are children of the same
process; a loop that is resumed starts them again itself. So it counts when a process began: while a
tool ran, or not. Whose child it is counts next: what a process of the run starts is the run's,
whenever. That is judged once, when a process is first seen, and stays.

Who was started, and lost its parent, while nobody looked is a child of the loop's like any other.
A session and a process group are inherited, so they may tell whose it is. Where they do not, it is
the run's if somebody of the run has ended meanwhile, and no object of the program stands for it;
while all of them live, nobody can tell. Who lost its parent where orphans do not come to the loop
is known by what it carries (`outsiders`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter

from crabrt.process import claims, outsiders, subreaper, table
from crabrt.process.outsiders import Outsiders
from crabrt.process.shell.launching import CALLED
from crabrt.process.table import TICK_NS, Process

Intervals = tuple[tuple[int, int], ...]
"""Of (begin, end) in nanoseconds of ``time.monotonic_ns``."""

Identity = tuple[int, int]


class Family:
    """The processes of a run. Used by one thread at a time.

    Args:
        own: the loop's process.
        workspace: the directory that the run works in: other runs of this program work elsewhere.

    Attributes:
        unsure: who may be the run's, or not, by the last look: nothing tells.
        is_whole: whether orphans had come to the loop all along, at that look.
    """

    def __init__(self, own: int, workspace: bytes = b"") -> None:
        self._own = own
        self.workspace = workspace
        self._is_run: dict[Identity, bool] = {}
        self._last: tuple[Process, ...] = ()
        self._alive: frozenset[Identity] = frozenset()
        self._orphans: set[Identity] = set()
        self._sessions = {os.getsid(0)}
        self._before: set[Identity] = set()
        self._unclaimed: set[Identity] = set()
        self._since_ns = self._escaped_until_ns = 0
        self.unsure: tuple[Process, ...] = ()
        self.is_whole = True
        self._had_left = False

    def settle(self) -> None:
        """What there is now was there before the run: none of it is the run's.

        Raises:
            OSError: the processes cannot be listed.
        """
        claims.enter(self)
        self._since_ns = time.monotonic_ns()
        self._last = tuple(claims.descendants(self._own))
        self._is_run |= {one.identity: False for one in self._last}
        self._before = set(self._is_run)

    def adopt(self, processes: Iterable[Identity]) -> None:
        """These are the run's, whoever started them: they came back with it.

        Whoever of the loop started one may wait for it. Nobody waits for those that another process
        had started, or another life of the loop's.
        """
        mine = list(processes)
        known = {pid for (pid, _), is_run in self._is_run.items() if is_run}
        started = known - {pid for pid, _ in self._orphans}
        self._orphans |= {who for who in mine if who[0] not in started}
        claims.claim(self, mine)
        self._is_run |= dict.fromkeys(mine, True)
        self._alive |= set(mine)

    def close(self) -> None:
        """Nobody is the run's any more."""
        claims.leave(self)

    def look(self, tools: Intervals | None) -> list[Process]:
        """The run's processes that live, parents before children.

        Args:
            tools: when tools ran since the last look; None: what began since then is the run's.

        Raises:
            OSError: the processes cannot be listed.
        """
        self.is_whole = subreaper.keep()
        seen = {one.pid: one for one in claims.descendants(self._own)}
        has_left = False
        for pid, started in [who for who, is_run in self._is_run.items() if is_run]:
            found = table.look(pid) if pid not in seen else None
            if found is not None and found.started == started:  # it left the loop's family
                has_left = True
                seen[pid] = found
                seen |= {one.pid: one for one in table.descendants(pid)}
        self._collect(seen)
        outside = Outsiders()
        # Who was out there at the last look may have left somebody, and ended.
        if has_left or self._had_left or not self.is_whole:
            outside = outsiders.find(seen, self._since_ns, self._sessions, self.workspace)
            seen |= {one.pid: one for one in outside.marked}
        self._had_left = has_left
        judged = self._judged(seen, tools, frozenset())
        strays, unsure = self._strays(seen, judged, outside)
        if strays:
            seen |= {one.pid: one for one in outside.lost if one.identity in strays}
            judged = self._judged(seen, tools, strays)
        mine = self._mine(seen, judged)
        lost = [one for one in outside.lost if tools is None or began_in(one, tools)]
        self._doubt([*unsure, *(one for one in lost if claims.may_have(self, one))], judged)
        if not self.is_whole:
            self._escaped_until_ns = time.monotonic_ns()
        return mine

    def _mine(self, seen: Mapping[int, Process], judged: dict[Identity, bool]) -> list[Process]:
        """Those that are no other run's either, and live."""
        others: set[int] = set()
        for one in seen.values():
            if judged[one.identity] and (one.parent in others or not claims.may_have(self, one)):
                others.add(one.pid)
        self._is_run, self._last = judged, tuple(seen.values())
        mine = [one for one in seen.values() if judged[one.identity] and one.pid not in others]
        claims.settle(self, (one.identity for one in mine))
        alive = [one for one in mine if not one.ended]
        self._alive = frozenset(one.identity for one in alive)
        return alive

    def _doubt(self, new: Iterable[Process], judged: Mapping[Identity, bool]) -> None:
        """Nobody can tell whose `new` are, nor those of before that live and are not the run's."""
        every = {one.identity: one for one in (*self.unsure, *new)}
        self.unsure = tuple(
            one for who, one in every.items() if not judged.get(who, False) and table.is_alive(who)
        )

    def _judged(
        self, seen: Mapping[int, Process], tools: Intervals | None, strays: Collection[Identity]
    ) -> dict[Identity, bool]:
        """Of each that is seen, parents before children, whether it is the run's."""
        judged: dict[Identity, bool] = {}
        for one in seen.values():
            above = seen.get(one.parent)
            is_run = self._is_run.get(one.identity)
            if is_run is None:
                is_run = above is not None and judged.get(above.identity, False)
                is_run = is_run or tools is None or began_in(one, tools)
                is_run = is_run or one.identity in strays
            judged[one.identity] = is_run
        return judged

    def _strays(
        self, seen: Mapping[int, Process], judged: Mapping[Identity, bool], outside: Outsiders
    ) -> tuple[frozenset[Identity], list[Process]]:
        """Whom a process of the run must have started, and left; and who may be such a one.

        Of those that are new: children of the loop's, and processes that descend from nobody seen.
        """
        new = [one for one in seen.values() if self._came(one, seen) and not judged[one.identity]]
        ours = {who for who, is_run in judged.items() if is_run and who not in self._is_run}
        ours |= self._alive
        if not (new or outside.lost) or not ours:
            return frozenset(), []
        spoken_for = subreaper.awaited()
        new = [one for one in new if one.pid not in spoken_for]
        new = [one for one in new if claims.is_nobody_elses(self, one)]
        run: list[Process] = []
        rest = [one for one in (table.look(self._own),) if one is not None]
        for one in (*self._last, *seen.values()):
            if judged.get(one.identity) or one.identity in ours:
                run.append(one)
            elif one not in new:
                rest.append(one)
        rest += outside.others
        # Asked after they were listed: one that was seen alive may have left its children since.
        is_gone = not all(map(table.is_alive, ours))
        strays, unsure = set(), []
        for one in new:
            kin = is_kin(one, run, rest)
            if kin or (kin is None and (is_gone or self._is_surely_left(one))):
                strays.add(one.identity)
            elif kin is None and CALLED not in table.command(one.pid):  # a shell is nobody's yet
                unsure.append(one)
        strays |= {one.identity for one in outside.lost if is_kin(one, run, rest)}
        return frozenset(strays), unsure

    def _came(self, process: Process, seen: Mapping[int, Process]) -> bool:
        """Whether it is the loop's child, or nobody's who is seen, since the last look."""
        is_known = process.identity in self._is_run
        lost = process.parent == self._own or process.parent not in seen
        return lost and not is_known and not process.ended

    def _is_surely_left(self, process: Process) -> bool:
        """Whether one that carries the run was started by somebody outside of the loop's family.

        Whoever in it loses its parent comes to the loop, if that is a subreaper.
        """
        is_outside = process.parent != self._own
        return is_outside and self.is_whole and process.began_ns > self._escaped_until_ns

    def _collect(self, seen: dict[int, Process]) -> None:
        self._sessions.add(os.getsid(0))
        ended = [one for one in seen.values() if one.parent == self._own and one.ended]
        orphans = [one for one in ended if one.identity in self._orphans or self._came_to_us(one)]
        subreaper.collect(orphans)
        rest = {one.identity: one for one in ended if one not in orphans}
        subreaper.collect_unclaimed([one for who, one in rest.items() if who in self._unclaimed])
        self._unclaimed = set(rest)
        self._orphans = {
            one.identity
            for one in seen.values()
            if one.parent != self._own or one.identity in self._orphans
        }

    def _came_to_us(self, child: Process) -> bool:
        """Whether a child surely has had another parent, though nobody saw that one.

        A child begins in its parent's session, and may only leave it for one of its own.
        """
        return (
            child.identity not in self._before
            and child.session not in self._sessions
            and child.session != child.pid
        )


def is_kin(process: Process, run: Iterable[Process], rest: Iterable[Process]) -> bool | None:
    """Whether an orphan has its session, or else its process group, from one of the run.

    None where that tells nothing: both sides have it, neither does, or it is the orphan's own.

    Args:
        process: the orphan.
        run: processes of the run.
        rest: those that are not, the loop's own among them.
    """
    theirs, others = tuple(run), tuple(rest)
    for number in (attrgetter("session"), attrgetter("group")):
        mine = number(process)
        has = any(number(one) == mine for one in theirs)
        if mine != process.pid and has != any(number(one) == mine for one in others):
            return has
    return None


def left_since(began_ns: int) -> int:
    """How many processes below this one live that began since then (``time.monotonic_ns``).

    What a tool leaves behind, if that is when it began. Costs two system calls where there are no
    children. Where they cannot be listed, one is assumed. Where orphans do not come to this
    process, those that carry a run of it count as well.
    """
    try:
        escaped = 0 if subreaper.is_marked() else outsiders.began_since(began_ns)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return escaped
    except OSError:
        return 1
    span = ((began_ns, time.monotonic_ns()),)
    try:
        found = claims.descendants(os.getpid())
    except OSError:
        return 1
    return escaped + sum(not one.ended and began_in(one, span) for one in found)


def began_in(process: Process, intervals: Intervals) -> bool:
    """Whether a process may have begun in one of the intervals."""
    began = process.began_ns
    return any(begin <= began + TICK_NS and began <= end for begin, end in intervals)
