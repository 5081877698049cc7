"""Who else is concerned: processes that hold files about to go, and this program's own code.

Best effort by nature: processes of other users cannot be looked into without privilege, and one may
open a file a moment later. Nothing is stopped or refused here; a report names what was found.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator

from crabrt.core.trees import Kind
from crabrt.workspace.restoring import files
from crabrt.workspace.restoring.handles import Blocked, Handles
from crabrt.workspace.restoring.steps import Action, Plan

_NOT_FILES = (b"/dev/", b"/proc/", b"/sys/", b"/memfd:", b"/[")
_FILES_ALL_THE_SAME = b"/dev/shm/"
_DELETED = b" (deleted)"

Inode = tuple[int, int]


def held_open(
    handles: Handles, plan: Plan, workspace: bytes, ending: Collection[int] = ()
) -> tuple[bytes, ...]:
    """Files that the plan replaces or deletes, and directories it deletes, that others hold.

    Args:
        handles: of the workspace, before anything is touched.
        plan: what is about to happen.
        workspace: its absolute real path.
        ending: processes that will have ended by then.

    Returns:
        Paths that another process has open, mapped, or as its current directory.
    """
    going = _going(handles, plan)
    if not going:
        return ()
    paths = set(going.values())
    prefix = workspace.rstrip(b"/") + b"/"
    found: set[bytes] = set()
    spared = {str(pid) for pid in (os.getpid(), *ending)}
    for pid in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if pid.isdecimal() and pid not in spared:
            found.update(going[inode] for inode in _opened(pid) if inode in going)
            mapped = {path for path in _mapped(pid, prefix) if path in paths}
            found.update(mapped if mapped and _sees(pid, workspace) else ())
    return tuple(sorted(found))


def _going(handles: Handles, plan: Plan) -> dict[Inode, bytes]:
    going: dict[Inode, bytes] = {}
    for step in plan.steps:
        if step.before is None or step.action is Action.METADATA:
            continue
        if step.before.kind not in (Kind.FILE, Kind.FIFO, Kind.DIR):
            continue
        with contextlib.suppress(Blocked, OSError):  # the step itself will say so
            fd, name = handles.parent(step.path)
            status = files.status(fd, name)
            if status is not None:
                going[(status.st_dev, status.st_ino)] = step.path
    return going


def _opened(pid: str) -> Iterator[Inode]:
    """The inodes a process has open, and its current directory."""
    places = [f"/proc/{pid}/cwd"]
    with contextlib.suppress(OSError):  # it ended, or is not ours to look into
        places += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    for place in places:
        with contextlib.suppress(OSError):
            link = os.readlink(os.fsencode(place))
            if link.startswith(_FILES_ALL_THE_SAME) or (
                link.startswith(b"/") and not link.startswith(_NOT_FILES)
            ):
                status = os.stat(place)
                yield status.st_dev, status.st_ino


def _sees(pid: str, workspace: bytes) -> bool:
    """Whether a process means our workspace by that path; in a mount namespace it may not."""
    try:
        return os.path.samefile(os.fsencode(f"/proc/{pid}/root") + workspace, workspace)
    except OSError:
        return True


def _mapped(pid: str, prefix: bytes) -> Iterator[bytes]:
    """Paths below `prefix`, relative to it, of files that a process has mapped."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            text = file.read()
    except OSError:
        return
    if prefix not in text:
        return
    for line in text.splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5].startswith(prefix):
            yield parts[5][len(prefix) :].removesuffix(_DELETED)


def own_code(paths: Iterable[bytes], workspace: bytes) -> tuple[bytes, ...]:
    """Which of `paths` belong to the running program: its script, modules, or environment."""
    prefix = workspace.rstrip(b"/") + b"/"
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    script = os.path.realpath(os.fsencode(sys.argv[0])) if sys.argv else b""
    running = (script, *(os.path.abspath(os.fsencode(m)) for m in modules if isinstance(m, str)))
    single = {name[len(prefix) :] for name in running if name.startswith(prefix)}
    environment = os.path.realpath(os.fsencode(sys.prefix))
    below = environment[len(prefix) :] + b"/" if environment.startswith(prefix) else None
    return tuple(
        path
        for path in paths
        if path in single or (below is not None and (path + b"/").startswith(below))
    )
