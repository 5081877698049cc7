"""A process tree into a directory of images. It never hangs, and the tree runs on whatever happens.

What CRIU is called with, and why, is in docs/internals/images.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from crabrt.errors import UsageError
from crabrt.process import table
from crabrt.process.beside import network
from crabrt.process.criu import mending, mounts, wire
from crabrt.process.criu.calling import Call, Limit, never
from crabrt.process.criu.causes import LOG_LINES, Cause, NotImaged, explain, started
from crabrt.process.criu.guarding import LOG, OUTPUT, SCRATCH
from crabrt.process.criu.holding import Hold
from crabrt.process.criu.mending import Tree
from crabrt.process.criu.owners import become
from crabrt.process.criu.programs import Criu
from crabrt.process.criu.remembering import doubt
from crabrt.process.criu.sessions import refuse_outside
from crabrt.process.criu.settling import Settling
from crabrt.workspace.procfs import Mount

COMMON_OPTIONS: Final = (
    "--no-default-config",
    "--tcp-established",
    "--file-locks",
    "--ext-unix-sk",
    "--manage-cgroups=ignore",
    "-v2",
)
"""Of dumps and restores alike."""

OWN_NAMESPACE: Final = ("--external", "mnt[]:m", "--root", "/")
"""For a tree with mount points of its own: what is mounted in it is there again at a restore."""

LOG_MAX_BYTES: Final = 1 << 20

_OOM_SCORE: Final = "-900"
_OUTLIVES_S: Final = 60.0
"""If we die, a dump may go on for so much longer than it might have taken while we lived."""
_UNMOUNTED_MOST: Final = 5
_SAFE_ATTEMPTS: Final = 100
_STOP_LIMIT_S: Final = 0.05
_BETWEEN_S: Final = 0.002


class Dumped(NamedTuple):
    """A tree was imaged.

    Attributes:
        took_s: from before CRIU was started until after it ended.
        freezing_s, frozen_s: what it took to stop the tree, and how long it stood still, as CRIU
            measured that itself; `took_s` where it did not say.
        size_bytes: of all images.
    """

    took_s: float
    freezing_s: float
    frozen_s: float
    size_bytes: int


def dump(
    criu: Criu,
    root_pid: int,
    into: Path,
    *,
    limit_s: float = 30.0,
    until: Callable[[], float] = never,
    leave: Literal["running", "stopped"] = "running",
    own_namespace: bool = False,
    freeze_cgroup: Path | None = None,
    ghost_limit_bytes: int = 64 << 20,
    hold: Hold | None = None,
) -> Dumped:
    """Image the process `root_pid` and all that descends from it.

    Args:
        criu: which CRIU, as `find` found it.
        root_pid: of this PID namespace.
        into: a directory that is empty, or absent; only images are in it afterwards, and nothing if
            this fails.
        limit_s: how long it may take.
        until: by when it has to be over as things stand, by ``time.monotonic``; asked again and
            again.
        leave: what the tree does after a success.
        own_namespace: the root is the first process of PID and mount namespaces of its own.
        freeze_cgroup: a cgroup (version 2) of the tree and nobody else, to stop it with. Needed
            where it is frozen already: CRIU would wait for ever otherwise. It is left as it was.
        ghost_limit_bytes: how long a file may be that is open and deleted: its bytes become part of
            the image.
        hold: what is to be done while the tree stands still; what that raises goes up.

    Raises:
        NotImaged: with the cause. The tree runs on as before (see `NotImaged.lost`).
        UsageError: `into` is not empty, or `freeze_cgroup` is no such cgroup.
    """
    tree = _tree(root_pid, freeze_cgroup)
    _prepare(into)
    argv = [*network.into(root_pid)] if own_namespace else []  # where it is, there is no image of
    owner = become(one.pid for one in tree.processes)
    argv += [*owner.before, str(criu.program), "dump", *owner.options]
    argv += ["--tree", str(root_pid), "--images-dir", str(into)]
    argv += [*COMMON_OPTIONS, "--network-lock", "skip", "--skip-in-flight"]
    argv += [f"--leave-{leave}", "--ghost-limit", str(ghost_limit_bytes)]
    argv += ["--timeout", str(max(1, int(limit_s * 0.8)))]  # its own, which ends more gently
    if own_namespace:
        argv += OWN_NAMESPACE
    elif tree.processes[0].session != root_pid:
        argv.append("--shell-job")
    if freeze_cgroup is not None:
        argv += ["--freeze-cgroup", str(freeze_cgroup)]
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH) as work,
        hold or Hold(lambda: None, limit_s) as held,
        Settling(tree, into, running=leave == "running") as settling,
    ):
        argv += ["--work-dir", work, "--log-file", LOG, *held.options(Path(work))]
        wait = partial(held.wait, last=settling.held, where=f"process {root_pid}")
        limit = Limit(limit_s, until)
        try:
            took_s = _as_mounted(
                root_pid if own_namespace else None,
                lambda without: _run([*argv, *without], settling, Path(work), limit, wait),
            )
            return _dumped(into, Path(work), took_s)
        except BaseException as error:
            if isinstance(error, NotImaged) and not limit.is_hurried:
                doubt(criu, error.cause)
            is_late = isinstance(error, NotImaged) and error.cause is Cause.TIME_LIMIT
            _empty(into, wait=not is_late)
            raise


def _tree(root_pid: int, cgroup: Path | None) -> Tree:
    try:
        tree = Tree.of(root_pid, cgroup)
    except FileNotFoundError as error:
        raise UsageError("no cgroup of version 2 that can be frozen", where=str(cgroup)) from error
    except OSError as error:
        raise NotImaged(
            f"it cannot be looked at: {error.strerror or error}",
            Cause.OTHER,
            where=f"process {root_pid}",
        ) from error
    if tree is None:
        raise NotImaged("there is no such process", Cause.GONE, where=f"process {root_pid}")
    refuse_outside(one.pid for one in tree.processes)
    return tree


def _as_mounted(pid: int | None, run: Callable[[Sequence[str]], float]) -> float:
    """What `run` gives; with options for what `pid` alone sees mounted, if it has its own mounts.

    Raises:
        NotImaged: as `run` does, but for what was unmounted outside meanwhile: then anew.
    """
    without = _seen_alone(pid)
    for left in reversed(range(_UNMOUNTED_MOST)):
        try:
            return started(partial(run, [f"--skip-mnt={place}" for place in without]))
        except NotImaged as error:
            before, without = without, _seen_alone(pid)
            said = "\n".join(error.log)
            if not left or not any(f".{place} " in said for place in without - before):
                raise
    raise AssertionError("it is tried at least once")


def _seen_alone(pid: int | None) -> frozenset[str]:
    found: list[Mount] = []
    with contextlib.suppress(OSError):  # CRIU says what is wrong
        found = mounts.left_behind(pid) if pid is not None else []
    return frozenset(os.fsdecode(one.point) for one in found)


def _prepare(into: Path) -> None:
    try:
        os.makedirs(into, mode=0o700, exist_ok=True)
        if os.listdir(into):
            raise UsageError("images go into an empty directory", where=str(into))
    except OSError as error:
        raise NotImaged(
            f"the directory for the images cannot be made: {error.strerror}",
            Cause.OTHER,
            where=str(into),
        ) from error


def _run(
    argv: list[str],
    settling: Settling,
    work: Path,
    limit: Limit,
    wait: Callable[[Call, Limit], int | None],
) -> float:
    where = f"process {settling.tree.processes[0].pid}"
    try:
        call = Call(argv, work / OUTPUT, outlives_s=limit.left_s + _OUTLIVES_S)
    except OSError as error:
        raise NotImaged(f"{argv[0]}: {error.strerror}", Cause.OTHER, where=where) from error
    with call:
        _spare(call.pid)
        try:
            status = wait(call, limit)
        except BaseException:
            if call.wait(0) is None:
                _end(call, settling.tree)
            raise
        took_s = call.took_s
        if status is None:
            waited = " while the loop waited" if limit.is_hurried else ""
            _end(call, settling.tree)
            raise NotImaged(
                f"CRIU was not done after {took_s:.2g} s{waited}, and was ended",
                Cause.TIME_LIMIT,
                log=read_log(work),
                lost=settling.tree.lost(),
                where=where,
            )
        if status < 0 or status > 128:  # by a signal; the second as a shell tells it
            _after_death(call, settling.tree)
            raise NotImaged(
                f"CRIU was ended by {_signal_name(-status if status < 0 else status - 128)}",
                Cause.KILLED,
                log=read_log(work),
                lost=settling.tree.lost(),
                where=where,
            )
    if status:
        log = read_log(work)
        reason = explain(log)
        raise NotImaged(reason.text, reason.cause, log=log[-LOG_LINES:], where=where)
    return took_s


def _spare(pid: int) -> None:
    """Memory may run short while memory is copied: let the kernel kill something else."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(call: Call, tree: Tree) -> None:
    """End a dump that goes on, at a moment when that kills nothing of the tree."""
    for attempt in range(_SAFE_ATTEMPTS):
        if attempt:
            call.signal(signal.SIGCONT)
            time.sleep(_BETWEEN_S)
        call.signal(signal.SIGSTOP)
        if _stands(call) and mending.harmless(tree):
            break
    _after_death(call, tree)


def _stands(call: Call) -> bool:
    until = time.monotonic() + _STOP_LIMIT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            found = table.look(call.pid)
            if found is None or found.ended or found.state == "T":
                return True
        time.sleep(_BETWEEN_S / 10)
    return False


def _after_death(call: Call, tree: Tree) -> None:
    mending.hold(tree)
    try:
        call.kill()
        mending.mend(tree)
    finally:
        mending.release(tree)


def read_log(work: Path) -> list[str]:
    """The lines of CRIU's log, after what it said before it had one; the end of a long one."""
    lines: list[str] = []
    for name in (OUTPUT, LOG):
        with contextlib.suppress(OSError), open(work / name, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_MAX_BYTES))
            lines += file.read().decode("utf-8", "backslashreplace").splitlines()
    return lines


def _dumped(into: Path, work: Path, took_s: float) -> Dumped:
    try:
        times = wire.read_dump_times((work / "stats-dump").read_bytes())
        freezing_s, frozen_s = times.freezing_us / 1e6, times.frozen_us / 1e6
    except (OSError, wire.NotUnderstood):
        freezing_s, frozen_s = 0.0, took_s
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(into))
    return Dumped(took_s, freezing_s, frozen_s, size)


def _empty(into: Path, *, wait: bool) -> None:
    """What a failed dump wrote is no image: nobody shall take it for one.

    The kernel gives back the memory of a file with its last descriptor, half a second for 2 GiB.

    Args:
        into: where it wrote.
        wait: until that room is there again; else it is given back on a thread.
    """
    held: list[int] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(into):
            with contextlib.suppress(OSError):  # no descriptor is free: then now
                held += [] if wait else [os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)]
            os.unlink(entry.path)
    if held:
        threading.Thread(target=_close, args=(held,), name="crabrt-let-go", daemon=True).start()


def _close(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)
