"""A process tree back from a directory of images, as our child: wholly, or not at all.

What CRIU is called with, and why, is in docs/internals/images.md.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from crabrt.core.secrets import redact_text
from crabrt.process import table
from crabrt.process.criu import connections, growing, mounts, wire
from crabrt.process.criu.calling import Call, Limit
from crabrt.process.criu.causes import LOG_LINES, Cause, NotRevived, Reason, explain, started
from crabrt.process.criu.dumping import COMMON_OPTIONS, OWN_NAMESPACE, read_log
from crabrt.process.criu.guarding import LOG, OUTPUT, PID, SCRATCH, Half
from crabrt.process.criu.locking import Locking
from crabrt.process.criu.mounts import Bind
from crabrt.process.criu.programs import Criu
from crabrt.process.criu.remembering import doubt
from crabrt.process.criu.sweeping import Attempt

_COMMAND_MOST: Final = 200

_GIVEN_BACK_S: Final = 5.0
"""How long the kernel may take to give a number back. Since Linux 6.15 it does that when who had
it is not seen any more (``free_pids`` in kernel/exit.c); on a busy machine who ends may be held up
in between."""

_BETWEEN_S: Final = 0.02
_UNMOUNTED_MOST: Final = 5

Files = Mapping[str, bytes | None]
"""Images that CRIU is to see instead, by name; None: it sees no such one."""


def restore(
    criu: Criu,
    images: Path,
    *,
    limit_s: float = 30.0,
    own_namespace: bool = False,
    inherit: Sequence[tuple[int, str]] = (),
    grown: Sequence[str] = (),
    within: Sequence[str] = (),
    room: int | None = None,
    binds: Sequence[Bind] = (),
    changed: Files | None = None,
) -> int:
    """Bring a tree back; the number of its root, which is a child of this process.

    It is this process's to wait for. Whoever was stopped when it was imaged is stopped again, and
    goes on with SIGCONT. Connections that lead out of the tree are over: see `connections`.

    Args:
        criu: which CRIU, as `find` found it.
        images: as `dump` wrote them; not changed.
        limit_s: how long it may take.
        own_namespace: as it was imaged.
        inherit: descriptors of this process for what leads out of the tree: (descriptor, what it
            stands for), as `Outside.resource` names that. A pipe for which none is given has no
            other end: who writes to it gets SIGPIPE or EPIPE, who reads meets its end.
        grown: absolute paths of files that may have another length now (logs outside of the
            workspace). See `growing`: who was at the end of such a file is at its end again.
        within: a command that runs another one in other namespaces, if it is to be there.
        room: if those are PID namespaces, their first process: the root becomes its child, where
            numbers are those of the images and every one of them is free.
        binds: what the tree is to see elsewhere; where it has a mount namespace of its own.
        changed: images that CRIU is to see instead, by name; None: it sees no such one.

    Raises:
        NotRevived: with the cause. Nothing of the tree is left.
    """
    tasks = _tasks(images)
    if not own_namespace and room is None:
        _refuse_taken(tasks, str(images))
    argv = [*within, str(criu.program), "restore", *COMMON_OPTIONS, "--restore-detached"]
    if room is None:
        argv.append("--restore-sibling")
    if own_namespace:
        argv += OWN_NAMESPACE
    elif tasks[0].session != tasks[0].pid:
        argv.append("--shell-job")
    for fd, resource in inherit:
        argv += ["--inherit-fd", f"fd[{fd}]:{resource}"]
    locking = Locking.of(images)
    if locking:
        argv.append("--leave-stopped")
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        work = Path(scratch)
        half = Half(work, images.absolute(), stopped=bool(locking))
        instead = dict(changed or {})
        instead |= {growing.FILE: growing.allowed(images, grown)} if grown else {}
        instead |= connections.changed(images, instead.get(growing.FILE))
        instead |= locking.changed(images)
        argv += ["--work-dir", scratch, "--log-file", LOG, "--pidfile", str(work / PID)]
        fds = [fd for fd, _ in inherit]
        own = own_namespace

        def run(seen: Files) -> int:
            view = _view(images, {**instead, **seen}, work)
            there = [*argv, "--images-dir", str(view)]
            return _once_given_back(
                lambda: _run(there, tasks, half, limit_s, fds, locking=locking, own=own, room=room)
            )

        try:
            return _as_mounted(run, lambda: mounts.shown(images, binds) if own else {})
        except NotRevived as error:
            doubt(criu, error.cause)
            raise


def _as_mounted(run: Callable[[Files], int], look: Callable[[], Files]) -> int:
    """What `run` gives for what `look` says of mounts; tried again where that changed meanwhile.

    Raises:
        NotRevived: as both do.
    """
    seen = look()
    for left in reversed(range(_UNMOUNTED_MOST)):
        try:
            return run(seen)
        except NotRevived:
            before, seen = seen, look()
            if seen == before or not left:
                raise
    raise AssertionError("it is tried at least once")


def _once_given_back(run: Callable[[], int]) -> int:
    """What `run` gives, which is tried again where a number was taken and nobody is seen with it.

    Raises:
        NotRevived: as `run` does.
    """
    until = time.monotonic() + _GIVEN_BACK_S
    while True:
        try:
            return started(run)
        except NotRevived as error:
            may_come = error.cause is Cause.PID_TAKEN and error.pid is None
            if not may_come or time.monotonic() > until:
                raise
        time.sleep(_BETWEEN_S)


def _tasks(images: Path) -> list[wire.Task]:
    try:
        return wire.read_tasks((images / "pstree.img").read_bytes())
    except (OSError, wire.NotUnderstood) as error:
        raise NotRevived(
            f"the list of processes among the images cannot be used: {error}",
            Cause.DAMAGED_IMAGE,
            where=str(images),
        ) from error


def _view(images: Path, instead: Files, work: Path) -> Path:
    """A directory of links to `images`, with other contents for some; None: without it."""
    if not instead:
        return images
    try:
        into = Path(tempfile.mkdtemp(prefix="view-", dir=work))
        for name in os.listdir(images):
            if name not in instead:
                os.symlink(images.absolute() / name, into / name)
        for name, data in instead.items():
            if data is not None:
                (into / name).write_bytes(data)
    except OSError as error:
        raise NotRevived(
            f"the images cannot be used: {error}", Cause.OTHER, where=str(images)
        ) from error
    return into


def _refuse_taken(tasks: Sequence[wire.Task], where: str, log: Sequence[str] = ()) -> None:
    """Every number that is needed has to be free.

    Raises:
        NotRevived: somebody is seen with one.
    """
    for number in _numbers(tasks):
        if os.path.exists(f"/proc/{number}"):
            raise _taken(number, where, log)


def _numbers(tasks: Sequence[wire.Task]) -> list[int]:
    return sorted({number for task in tasks for number in (task.pid, *task.threads)})


def _in_use(tasks: Sequence[wire.Task]) -> str:
    """Who keeps a number that nobody has: as long as a session or a group is called by it."""
    numbers = set(_numbers(tasks))
    for name in os.listdir("/proc"):
        one = None
        with contextlib.suppress(OSError):  # it ended meanwhile
            one = table.look(int(name)) if name.isdecimal() else None
        if one is not None and {one.session, one.group} & numbers:
            kind = "session" if one.session in numbers else "group"
            return f": process {one.pid} is in the {kind} of that number (end it)"
    return ""


def _taken(number: int, where: str, log: Sequence[str]) -> NotRevived:
    hint = "end it, or restore into a PID namespace of its own"
    try:
        holder = table.look(number)
    except OSError:
        holder = None
    if holder is None:
        what = "or was a moment ago"
    elif holder.ended:
        what = f"by one that has ended and that process {holder.parent} has not collected yet"
        hint = f"have process {holder.parent} wait for it"
    else:
        shown = b" ".join(table.command(number)).decode("utf-8", "backslashreplace")
        what = f"by {redact_text(shown)[:_COMMAND_MOST]}"
    return NotRevived(
        f"the process number {number} is taken, {what}",
        Cause.PID_TAKEN,
        log=log,
        pid=number,
        where=where,
        hint=hint,
    )


def _run(
    argv: list[str],
    tasks: Sequence[wire.Task],
    half: Half,
    limit_s: float,
    pass_fds: Sequence[int],
    *,
    locking: Locking,
    own: bool,
    room: int | None,
) -> int:
    where = f"process {tasks[0].pid}"
    try:
        beside = table.descendants(room) if room is not None else []
        call = Call(argv, half.work / OUTPUT, pass_fds, limit_s, half)
    except OSError as error:
        why = f"{argv[0]}: {error.strerror or error}"
        raise NotRevived(why, Cause.OTHER, where=where) from error
    began = table.look(call.pid)
    since = began.started if began is not None else 0
    attempt = Attempt(tasks, call.pid, since, own, room, beside)
    with call:
        try:
            status = call.wait(Limit(limit_s))
            root = _root(half.work, room) if status == 0 else None
            if root is not None:
                if locking:
                    locking.finish(root)
                return root
        except BaseException:
            call.kill()
            attempt.sweep()
            raise
        if status is None:
            call.kill()
    log = read_log(half.work)
    reason = _reason(status, log, limit_s)
    is_taken = reason.cause is Cause.PID_TAKEN and room is None and not own
    attempt.sweep(spared=reason.pid if is_taken else None)
    if is_taken:
        _refuse_taken(tasks, where, log[-LOG_LINES:])
        reason = reason._replace(text=reason.text + _in_use(tasks))
    raise NotRevived(reason.text, reason.cause, log=log[-LOG_LINES:], where=where)


def _reason(status: int | None, log: Sequence[str], limit_s: float) -> Reason:
    if status is None:
        text = f"CRIU was not done after {limit_s:g} s, and was ended"
        return Reason(Cause.TIME_LIMIT, f"{text} (damaged images can do that)")
    if status == 0:
        return Reason(Cause.OTHER, "CRIU did not say which process it restored")
    if status < 0 or status > 128:
        return Reason(Cause.KILLED, "CRIU was ended by a signal")
    return explain(log)


def _root(work: Path, room: int | None) -> int | None:
    try:
        number = int((work / PID).read_text())
        if room is None:
            return number
        return next(pid for pid in table.children(room) if table.inner_number(pid) == number)
    except (OSError, ValueError, StopIteration):
        return None
