"""After the steps: read back what was written, and give directories their final metadata.

Files are compared with the target by what is on the disk, opened anew from the top, before the
directories get modes that may close them to us. Directories follow deepest first, those included
that were opened up for a while and only get their own mode back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crabrt.core.failpoints import declare
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Entry, Kind
from crabrt.workspace.restoring import files
from crabrt.workspace.restoring.handles import Blocked, Handles, by_descriptor, describe
from crabrt.workspace.restoring.metadata import (
    METADATA,
    differences,
    read_xattrs,
    set_metadata,
    wanted_xattrs,
)
from crabrt.workspace.restoring.steps import Action, Plan, Step
from crabrt.workspace.restoring.sync import sync_file_system

_synced = declare("restore.synced", "the workspace is durable, the log does not say so yet")
_settled = declare("restore.settled", "a directory has its final metadata")


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a restore.

    Attributes:
        problems: path -> why it is not as in the target.
        verified: everything that could be brought back was read back, and is right.
    """

    problems: dict[bytes, str]
    verified: bool


def finish(
    handles: Handles,
    fresh: Handles,
    reader: ObjectReader,
    plan: Plan,
    *,
    left: Mapping[bytes, str],
    partial: Mapping[bytes, str],
) -> Finished:
    """Verify files, settle directories, sync.

    Args:
        handles: what the steps were done with.
        fresh: of the same directory, with nothing open: the way down is walked again.
        reader: has the content.
        plan: what was done.
        left: path -> why it was not brought back at all.
        partial: path -> what of its metadata could not be.

    Raises:
        OSError: what was written could not be made durable.
    """
    wrong = _verify(fresh, reader, plan, left, partial)
    for path, mode in fresh.loosened.items():
        handles.loosened.setdefault(path, mode)
    incomplete, unsettled = settle(handles, plan)
    sync_file_system(handles.root_fd)
    _synced()
    return Finished(
        problems={**partial, **incomplete, **wrong, **unsettled, **left},
        verified=not (wrong or unsettled),
    )


def _verify(
    handles: Handles,
    reader: ObjectReader,
    plan: Plan,
    left: Mapping[bytes, str],
    partial: Mapping[bytes, str],
) -> dict[bytes, str]:
    """Compare every file of the plan with the disk; path -> how it differs."""
    found = {}
    for step in plan.steps:
        if step.path in left or step.action is Action.MKDIR:
            continue
        if step.after is not None and step.action in (Action.DELETE, Action.RMDIR):
            continue  # replaced: compared by the step that did
        wrong = _verify_step(handles, reader, step)
        if step.path in partial:
            wrong = [how for how in wrong if how not in METADATA]
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


def settle(handles: Handles, plan: Plan) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Give every directory its final metadata, deepest first.

    Returns:
        path -> what could not be set; path -> what is wrong though it was set.
    """
    incomplete: dict[bytes, str] = {}
    wrong: dict[bytes, str] = {}
    wanted = dict(plan.settle)
    for path in sorted({*wanted, *handles.loosened}, key=_depth, reverse=True):
        try:
            fd = handles.directory(path)
            if path in wanted:
                _give(fd, path, wanted[path], incomplete, wrong)
            else:
                os.chmod(by_descriptor(fd), handles.loosened[path])
            _settled()
        except FileNotFoundError:
            continue  # removed, or never made: listed where that went wrong
        except Blocked as reason:
            incomplete[path] = str(reason)
        except OSError as error:
            incomplete[path] = describe(error)
    handles.loosened.clear()
    return incomplete, wrong


def _depth(path: bytes) -> int:
    return path.count(b"/") + 1 if path else 0


def _give(
    fd: int, path: bytes, entry: Entry, incomplete: dict[bytes, str], wrong: dict[bytes, str]
) -> None:
    missing = set_metadata(fd, entry)
    if missing:
        incomplete[path] = "; ".join(missing)
        return
    differs = differences(entry, os.fstat(fd))
    if read_xattrs(fd) != wanted_xattrs(entry):
        differs.append("xattrs")
    if differs:
        wrong[path] = "differs after it was set: " + ", ".join(differs)


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
