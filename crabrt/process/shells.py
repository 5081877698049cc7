"""The shells of a loop, as they go into a checkpoint and are taken up from one.

A shell is known by its name and by the how-manieth of that name the program made: a loop that is
resumed makes the same ones again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Final, NamedTuple

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.forks import fork_safe
from crabrt.core.processes import KeptShell, LastingProcess, ProcessTree
from crabrt.errors import CrabError
from crabrt.process.shell import Shell, ShellOptions, ShellRecord, ShellState, ShellUnavailable
from crabrt.process.shell.launching import CALLED
from crabrt.process.shell.leftovers import discard
from crabrt.process.shell.rebuilding import note_of, rebuild
from crabrt.process.shell.session import Session, restored
from crabrt.process.shell.shell import GRACE_S

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_record: Final = msgspec.msgpack.Decoder(ShellRecord).decode
_decode_state: Final = msgspec.msgpack.Decoder(ShellState).decode

_NOTHING_RECORDED: Final = (
    "the shell had ended; this is a new one, without its variables: it was at a command when its "
    "state was to be recorded"
)

_made: Counter[str] = Counter()
_lock = fork_safe(threading.Lock())

Identity = tuple[str, int]


def next_ordinal(name: str) -> int:
    """The how-manieth shell of that name this is in the process, from 0."""
    with _lock:
        ordinal = _made[name]
        _made[name] += 1
        return ordinal


def record_of(kept: KeptShell) -> ShellRecord:
    """What somebody must know to attach to it.

    Raises:
        ShellUnavailable: it is malformed.
    """
    try:
        return _decode_record(kept.record)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        what = f"what was kept of shell {kept.name} is malformed: {error}"
        raise ShellUnavailable(what) from error


def _renumbered(kept: KeptShell, numbers: Mapping[int, int]) -> KeptShell:
    """The same shell, whose first process may have another number now."""
    number = numbers.get(kept.top)
    if number is None:
        return kept
    with contextlib.suppress(ShellUnavailable):  # it is gone: then it is rebuilt
        record = restored(record_of(kept), number)
        return msgspec.structs.replace(kept, top=number, record=_encode(record))
    return kept


def among(trees: Iterable[ProcessTree], known: Iterable[KeptShell]) -> tuple[KeptShell, ...]:
    """The shells whose processes live, so that an image of them can be given its channels.

    One of which nothing is known is nobody's: it has its channels and no name.

    Args:
        trees: of those that live.
        known: what checkpoints say of shells.
    """
    kept = {}
    for one in known:
        with contextlib.suppress(ShellUnavailable):
            kept[record_of(one).inside] = one
    found: dict[bytes, KeptShell] = {}
    for tree in trees:
        for process in tree.processes:  # the first one before those that it forked
            directory = _channels_of(process)
            if directory in kept:
                mine = kept[directory]
                found.setdefault(directory, _renumbered(mine, {mine.top: process.pid}))
            elif directory and _holds(process, directory):
                found.setdefault(directory, _nobodys(process, directory))
    return tuple(found.values())


def _channels_of(process: LastingProcess) -> bytes:
    """The directory that a shell's first process was started with; empty if it is none."""
    words = iter(process.command)
    return next(words, b"") if CALLED in words else b""


def _holds(process: LastingProcess, directory: bytes) -> bool:
    """Whether the channels in `directory` are those that it has: by that path as we know it."""
    try:
        mine = os.stat(b"/proc/%d/fd/0" % process.pid)
        return os.path.samestat(mine, os.stat(os.path.join(directory, b"control")))
    except OSError:
        return False


def _nobodys(process: LastingProcess, directory: bytes) -> KeptShell:
    record = ShellRecord(
        directory=directory,
        isolation="session",
        init_pid=process.pid,
        init_started=process.started,
        mark=os.path.basename(directory).decode("ascii", "replace"),
        boot=boot_id(),
        options=ShellOptions(),
    )
    return KeptShell("", 0, process.pid, _encode(record))


class _Kept(NamedTuple):
    """A shell whose owner has closed it, and that lives: its heir, and what it is told by."""

    shell: Shell
    tag: object


class Shells:
    """Those of one run. Safe to use from several threads.

    Attributes:
        within: a command that runs another one where the run's shells are to be, if that is not
            where the loop is.
    """

    def __init__(self) -> None:
        self.within: tuple[str, ...] = ()
        self._used: weakref.WeakValueDictionary[Identity, Shell] = weakref.WeakValueDictionary()
        self._last: dict[Identity, tuple[int, KeptShell]] = {}
        self._recorded: dict[Identity, KeptShell] = {}
        self._kept: dict[Identity, _Kept] = {}
        self._is_over = False
        self._lock = fork_safe(threading.RLock())  # garbage, too, may leave a shell

    def take(self) -> tuple[KeptShell, ...]:
        """Those that are alive, with what they could be rebuilt from; a busy one has none.

        Those that came back and that nobody has used since are as they were.
        """
        with self._lock:
            used, waiting = dict(self._used), tuple(self._recorded.values())
        kept = [self._taken(who, shell) for who, shell in used.items()]
        return (*waiting, *(one for one in kept if one is not None))

    def _taken(self, who: Identity, shell: Shell) -> KeptShell | None:
        holding = shell._holding  # noqa: SLF001  this floor's own
        record = shell.record
        if record is None:
            return None
        known = self._last.get(who)
        if known is not None and known[0] == holding.uses and known[1].top == record.init_pid:
            return known[1]
        state = b""
        if holding.turn.acquire(blocking=False):
            try:
                state = _encode(shell.record_state())
            except ShellUnavailable:
                return None
            finally:
                holding.turn.release()
        kept = KeptShell(*who, record.init_pid, _encode(record), state)
        if state:
            self._last[who] = (holding.uses, kept)
        return kept

    def recorded(self, shells: Iterable[KeptShell], numbers: Mapping[int, int]) -> None:
        """These come back with a state: who uses one of them next takes it up.

        Args:
            shells: of that state.
            numbers: of first processes that were restored: what each is now.
        """
        with self._lock:
            used = dict(self._used)
            self._recorded = {one.identity: _renumbered(one, numbers) for one in shells}
            self._used.clear()
            self._kept.clear()
        self._last.clear()
        for shell in used.values():
            shell._holding.forget()  # noqa: SLF001  this floor's own

    def open(self, who: Identity, shell: Shell, begin: Callable[[], Session]) -> Session:
        """A session for `shell`, which has none: the recorded one, one rebuilt, or a new one."""
        with self._lock:
            self._used[who] = shell
            kept = self._recorded.pop(who, None)
        shell._holding.within = self.within  # noqa: SLF001  this floor's own
        if kept is None:
            return begin()
        record = record_of(kept)
        try:
            return Session.attach(record)
        except ShellUnavailable:
            discard(record)
            if not kept.state:
                session = begin()
                shell._holding.tell(_NOTHING_RECORDED)  # noqa: SLF001
                return session
            state = _decode_state(kept.state)
            shell._holding.where, shell._holding.may_move = state.directory, True  # noqa: SLF001
            session = begin()
            shell.not_rebuilt = rebuild(session, state)
            shell._holding.tell(note_of(shell.not_rebuilt))  # noqa: SLF001
            return session

    def keep(self, who: Identity, shell: Shell, tag: object) -> bool:
        """Keep `shell`, which its owner closes, alive until `close_kept`.

        Args:
            who: it.
            shell: is closed for its owner.
            tag: for `close_kept`.

        Returns:
            Whether that is so; else nothing was done: it is not the run's, or that is over.
        """
        with self._lock:
            known = self._used.get(who) if shell.record is not None else None
            is_ours = known is shell or (shell.record is None and who in self._recorded)
            if self._is_over or not is_ours:
                return False
        heir = shell.bequeath()
        if not self._inherited(who, heir, tag):
            heir.close()
        return True

    def _inherited(self, who: Identity, heir: Shell, tag: object) -> bool:
        with self._lock:
            if self._is_over:
                return False
            self._kept[who] = _Kept(heir, tag)
            if heir.record is not None:
                self._used[who] = heir
            return True

    @property
    def keeps_any(self) -> bool:
        """Whether there is one to close."""
        return bool(self._kept)

    def close_kept(
        self, wanted: Callable[[object], bool], after: Callable[[], object] = int
    ) -> Future[None]:
        """Close shells that are kept, on a thread of its own that no signal of Ctrl-C cuts off.

        Args:
            wanted: says by its tag whether one is meant.
            after: is waited for first.

        Returns:
            Done when they are closed.
        """
        with self._lock:
            kept = {who: one for who, one in self._kept.items() if wanted(one.tag)}
            for who in kept:
                del self._kept[who]
        done: Future[None] = Future()

        def close() -> None:
            try:
                after()
                for who, one in kept.items():
                    with contextlib.suppress(CrabError, OSError):  # another one may be closed
                        one.shell.close()
                        self.end_recorded(who)
            finally:
                done.set_result(None)

        if kept:
            threading.Thread(target=close, name="crabrt-shell-close").start()
        else:
            done.set_result(None)
        return done

    def close(self, after: Callable[[], object]) -> None:
        """The run is over: close what is kept, and keep nothing any more."""
        with self._lock:
            self._is_over = True
        self.close_kept(lambda _: True, after).result()

    def end_recorded(self, who: Identity, grace_s: float = GRACE_S) -> None:
        """End a shell that came back, and that nobody has taken up."""
        with self._lock:
            kept = self._recorded.pop(who, None)
        with contextlib.suppress(ShellUnavailable):  # malformed: nobody can attach to it
            if kept is not None:
                _end(record_of(kept), grace_s)


def _end(record: ShellRecord, grace_s: float) -> None:
    try:
        session = Session.attach(record)
    except ShellUnavailable:
        discard(record)
    else:
        session.close(grace_s)
