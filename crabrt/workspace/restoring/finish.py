"""After the steps: read back what was written, and give directories their final metadata.

Files are compared with the target by what is on the disk, opened anew from the top, before the
directories get modes that may close them to us. Directories follow deepest first, those included
that were opened up for a while and only get their own mode back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from crabrt.core.failpoints import declare
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry, Kind
from crabrt.workspace.restoring import files
from crabrt.workspace.restoring.handles import Blocked, Handles, by_descriptor, describe
from crabrt.workspace.restoring.metadata import differences, read_xattrs, set_metadata
from crabrt.workspace.restoring.steps import Action, Plan, Step

_settled = declare("restore.settled", "a directory has its final metadata")


def verify(
    handles: Handles, reader: ObjectReader, plan: Plan, skip: Iterable[bytes]
) -> dict[bytes, str]:
    """Compare every file of the plan with the disk.

    Args:
        handles: fresh ones: the way down is walked again.
        reader: has the content.
        plan: what was done.
        skip: paths that are known to be incomplete.

    Returns:
        path -> how it differs.
    """
    known = frozenset(skip)
    found = {}
    for step in plan.steps:
        if step.path in known or step.action is Action.MKDIR:
            continue
        if step.after is not None and step.action in (Action.DELETE, Action.RMDIR):
            continue  # replaced: compared by the step that did
        wrong = _verify_step(handles, reader, step)
        if wrong:
            found[step.path] = "differs after it was written: " + ", ".join(wrong)
    return found


def _verify_step(handles: Handles, reader: ObjectReader, step: Step) -> list[str]:
    try:
        fd, name = handles.parent(step.path)
        if step.after is None:
            return [] if files.status(fd, name) is None else ["it is still there"]
        deep = step.action is Action.WRITE
        wrong = files.compare(fd, name, step.after, reader, deep=deep)
        if step.action is Action.LINK and not wrong:
            mine = os.stat(name, dir_fd=fd, follow_symlinks=False)
            source_fd, source = handles.parent(step.source)
            other = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
            return [] if os.path.samestat(mine, other) else ["links"]
    except FileNotFoundError:
        return [] if step.after is None else ["absent"]
    except Blocked as reason:
        return [] if step.after is None else [str(reason)]
    except OSError as error:
        return [describe(error)]
    return wrong


def settle(handles: Handles, plan: Plan) -> dict[bytes, str]:
    """Give every directory its final metadata, deepest first.

    Returns:
        path -> what is not as it should be.
    """
    found: dict[bytes, str] = {}
    wanted = dict(plan.settle)
    for path in sorted({*wanted, *handles.loosened}, key=_depth, reverse=True):
        if path in wanted:
            _note(found, path, _give, handles, wanted[path])
        else:
            _note(found, path, _put_back, handles, handles.loosened[path])
    handles.loosened.clear()
    return found


def _depth(path: bytes) -> int:
    return path.count(b"/") + 1 if path else 0


def _note(
    found: dict[bytes, str],
    path: bytes,
    action: Callable[..., list[str]],
    handles: Handles,
    wanted: Entry | int,
) -> None:
    try:
        wrong = action(handles, path, wanted)
    except FileNotFoundError:
        return  # removed, or never made: listed where that went wrong
    except Blocked as reason:
        wrong = [str(reason)]
    except OSError as error:
        wrong = [describe(error)]
    if wrong:
        found[path] = "; ".join(wrong)


def _put_back(handles: Handles, path: bytes, mode: int) -> list[str]:
    os.chmod(by_descriptor(handles.directory(path)), mode)
    _settled()
    return []


def _give(handles: Handles, path: bytes, entry: Entry) -> list[str]:
    fd = handles.directory(path)
    missing = set_metadata(fd, entry)
    if not missing:
        missing = [f"differs: {how}" for how in differences(entry, os.fstat(fd))]
        if read_xattrs(fd) != dict(entry.xattrs):
            missing.append("differs: xattrs")
    _settled()
    return missing


def close_left_open(
    handles: Handles, plan: Plan, expected: Callable[[bytes], Entry | None]
) -> None:
    """Find directories that an interrupted restore had opened up, and remember to close them.

    Args:
        handles: where to remember them.
        plan: whose paths' parents may have been opened.
        expected: what a directory was before, or None.
    """
    settled = {path for path, _ in plan.settle}
    parents = {step.path.rpartition(b"/")[0] for step in plan.steps} - settled
    for path in sorted(parents, key=_depth):
        entry = expected(path)
        if entry is None or entry.kind != Kind.DIR or entry.mode & 0o700 == 0o700:
            continue
        try:
            mode = stat.S_IMODE(os.fstat(handles.directory(path)).st_mode)
        except (Blocked, OSError):
            continue  # not there, or not reachable: nothing was left open
        if mode == entry.mode | 0o700:
            handles.loosened[path] = entry.mode
