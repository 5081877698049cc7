"""One process is started again as it was recorded, and waited for until it listens again.

What is in its way is found out before, by name: somebody who listens where it listened. A Unix
socket that nobody listens on any more is what it left behind itself, and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from crabrt.core.config import RUN_VARIABLE
from crabrt.core.processes import LastingProcess, Service, Stream
from crabrt.process import orphans, sockets, table
from crabrt.process.family import Identity
from crabrt.process.obstacles import named
from crabrt.process.respawning.launching import Launched, NotStarted

_CONNECTS_S: Final = 0.5
_PEER: Final = struct.Struct("3i")  # struct ucred: its pid, uid and gid
_STREAMS: Final = ("input", "output", "error")


class Started(msgspec.Struct, frozen=True):
    """A process that was started again.

    Attributes:
        was: as it was recorded.
        pid: its number now; that of who took its place, if it went into the background.
        processes: it, and all that it started.
        listens: where they listen now.
        silent: where they do not, and it or its children did.
        lost: what it lacks, for people.
    """

    was: LastingProcess
    pid: int
    processes: tuple[Identity, ...]
    listens: tuple[str, ...]
    silent: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def start(was: LastingProcess, service: Service, listened: Sequence[str], run: str = "") -> Started:
    """Start `was` again, and wait until it listens, at most `launching.LIMIT_S`.

    Args:
        was: the process.
        service: what it takes.
        listened: where it and its children did.
        run: whose it is from now on; several, separated by commas: one of whose, the last if it
            says none of them; empty: whose it was.

    Raises:
        NotStarted: it cannot be, or it ended at once.
    """
    _refuse_taken(listened, was.directory)
    for one in listened:
        _remove_dead(one, was.directory)
    with Launched(_order(was, service, run)) as launched:
        pid, lost = launched.started()
        try:
            processes, listens = launched.wait(listened)
        except NotStarted as error:
            written = next((one.path for one in reversed(service.streams) if one.flags), b"")
            where = f"; what it wrote is in {_text(written)}" if written else ""
            raise NotStarted(error.message + where) from error
    told = [f"standard {name} led to {one.lost}: it is /dev/null now"
            for name, one in zip(_STREAMS, service.streams, strict=False) if one.lost]  # fmt: skip
    if service.stopped:
        told.append("it was stopped, and runs now")
    silent = tuple(one for one in listened if one not in listens)
    now = pid if any(one == pid for one, _ in processes) else processes[0][0]
    return Started(was, now, processes, listens, silent, (*told, *lost))


def _refuse_taken(listened: Sequence[str], directory: bytes) -> None:
    """Raise `NotStarted` if somebody listens where it is to listen, in its `directory`.

    The kernel tells of a Unix socket by what it was bound to: ``app.sock`` is a place in each
    directory, so one that says no more is asked at the place itself.
    """
    there = sockets.listening_sockets(os.getpid())
    for address in listened:
        path = _relative(address)
        if path:
            is_taken, by = _asked(os.path.join(directory, path))
            shown = f"{address} in {os.fsdecode(directory)}"
        else:
            found = [at for at, other in there.items() if sockets.collide(address, other)]
            by = next((pids[0] for pids in sockets.holders(found[:1]).values()), 0)
            is_taken, shown = bool(found), address
        if is_taken:
            raise NotStarted(f"{shown} is taken{_named(by)}; end that, then try again")


def _relative(address: str) -> bytes:
    """The path of a Unix socket that was bound to a relative one; empty if it is none."""
    kind, _, path = address.partition(" ")
    return b"" if kind != "unix" or path.startswith(("/", "@")) else os.fsencode(path)


def _named(pid: int) -> str:
    if not pid:
        return ", by a process that may not be looked at"
    return f", by {named(pid)} (pid {pid})"


def _asked(place: bytes) -> tuple[bool, int]:
    """Whether somebody listens on the Unix socket at `place`, and who began that; 0: not known."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as probe:
            answer = _connected(probe, place)
            if answer == errno.EAGAIN:
                return True, 0  # too many wait to be heard
            if answer == 0:
                peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
                pid: int = _PEER.unpack(peer)[0]
                found = table.look(pid)
                return True, 0 if found is None or found.ended else pid
    return False, 0


def _connected(probe: socket.socket, place: bytes) -> int:
    """How connecting to a Unix socket ends; its directory's path may be longer than an address."""
    folder = os.open(os.path.dirname(place) or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        probe.settimeout(_CONNECTS_S)
        return probe.connect_ex(b"/proc/self/fd/%d/%s" % (folder, os.path.basename(place)))
    finally:
        os.close(folder)


def _remove_dead(address: str, directory: bytes) -> None:
    """Remove a Unix socket that refuses everybody."""
    kind, _, path = address.partition(" ")
    if kind != "unix" or not path or path.startswith("@"):
        return
    place = os.path.join(directory, os.fsencode(path))
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(os.lstat(place).st_mode):
            return
        if _connected(probe, place) == errno.ECONNREFUSED:
            os.unlink(place)


def _order(was: LastingProcess, service: Service, run: str) -> dict[str, Any]:
    """What the launcher is told (``launcher.Start``)."""
    user: tuple[int, int, tuple[int, ...]] | None = None
    if os.geteuid() == 0:
        user = service.user, service.group, service.groups
    elif service.user != os.getuid():
        raise NotStarted(f"it ran as user {service.user}; only root may start it so")
    if not was.command:
        raise NotStarted("its command is not known")
    return {
        "program": _text(service.program),
        "arguments": [_text(word) for word in was.command],
        "environment": [_text(one) for one in _environment(service.environment, run)],
        "directory": _text(was.directory or b"/"),
        "streams": [_stream(one) for one in service.streams],
        "umask": service.umask,
        "nice": service.nice,
        "limits": [(one.resource, one.soft, one.hard) for one in service.limits],
        "user": user,
        "leads": service.leads,
    }


def _stream(stream: Stream) -> tuple[str, int, int]:
    return _text(stream.path), stream.flags, stream.position


def _environment(recorded: Sequence[bytes], run: str) -> Iterator[bytes]:
    """The recorded one, in which it is said whose the process is."""
    mark = f"{RUN_VARIABLE}=".encode()
    said = _text(next((one[len(mark) :] for one in recorded if one.startswith(mark)), b""))
    runs = run.split(",")
    if run and not orphans.belongs(said, runs, lambda _: False):
        said = runs[-1]
    yield from (one for one in recorded if not one.startswith(mark))
    if said:
        yield mark + said.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
