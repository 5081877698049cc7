"""What a workspace will be once the restore that was killed in it is finished: for a dry run.

A dry run touches nothing, so it cannot finish that restore first, as the restore that it stands for
would. It takes what is there with what the recovery would still do to it.
"""

from __future__ import annotations

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.core.trees import Entry, Kind
from crabrt.journal.restores import Begin
from crabrt.workspace.changes import Change, differences, join
from crabrt.workspace.diff import diff_roots, read_root
from crabrt.workspace.links import read_groups
from crabrt.workspace.restoring.edited import Edits, put_edited
from crabrt.workspace.restoring.files import temp_name
from crabrt.workspace.restoring.handles import split
from crabrt.workspace.restoring.known import add_missing_parents, links_of, same_but_metadata
from crabrt.workspace.restoring.plan import entry_or_none
from crabrt.workspace.restoring.scope import Scope


def foreseen(writer: ObjectWriter, begun: Begin, there: ObjectId) -> ObjectId:
    """The root of what `there`, half done by `begun`, will be once that is finished.

    What a recovery would leave alone stays as it is: what somebody changed since the kill.

    Raises:
        DamagedObject: one of the states cannot be read.
        StoreUnavailable: it cannot be stored.
    """
    edits: Edits = {}
    stays: set[bytes] = set()
    temporary: set[bytes] = set()
    plan = {c.path: c for c in diff_roots(writer, begun.before, begun.target, begun.paths)}
    for change in diff_roots(writer, there, begun.target, begun.paths):
        above, name = split(change.path)
        temporary.add(join(above, temp_name(begun.id, name)))
        planned = plan.get(change.path)
        if _will_be_done(change, change.after if planned is None else planned.before):
            edits[change.path] = change.after
        else:
            stays.add(change.path)
    stays -= temporary
    if not (stays or begun.paths):
        return begun.target
    left = (path for path in temporary if entry_or_none(writer, there, path) is not None)
    edits.update(dict.fromkeys(left))
    for path in stays:  # a directory that something stays in stays
        while path := split(path)[0]:
            if edits.get(path, path) is None:
                del edits[path]
    add_missing_parents(writer, there, begun.target, edits)
    scope = Scope(begun.paths)
    groups, wanted = (
        read_groups(read_root(writer, one).links, writer) for one in (there, begun.target)
    )
    links = links_of(
        groups,
        wanted,
        groups,
        is_brought=lambda path: path in scope and path not in stays,
        gone={path for path, entry in edits.items() if entry is None},
    )
    return put_edited(writer, there, edits, links)


def _will_be_done(change: Change, was: Entry | None) -> bool:
    """Whether a recovery brings a path to its target; `was`: what the killed restore found there.

    It does where nothing is, and where something is that it found or has written itself.
    """
    found, wanted = change.before, change.after
    if not differences(found, wanted):
        return True  # but for its hard links
    if not differences(was, wanted):  # none of its business, but for a directory it had opened
        return (
            found is not None
            and was is not None
            and found.kind == was.kind == Kind.DIR
            and found.mode == was.mode | 0o700
        )
    return found is None or same_but_metadata(found, wanted) or same_but_metadata(found, was)
