"""Which inode serves which names: what is kept, changed in place, written anew, or linked.

An inode is kept where its bytes stay and every name of it is meant; else the names get a new one,
so that nothing outside the scope is ever altered through a hard link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from crabrt.core.trees import Entry, Kind
from crabrt.workspace.changes import Change, differences
from crabrt.workspace.restoring.metadata import METADATA
from crabrt.workspace.restoring.scope import Scope
from crabrt.workspace.restoring.steps import Action, Step


class InodePlanner:
    """Steps for what is no directory, one whole target group of hard links at a time.

    Args:
        changes: by path.
        before: by path, the names that share its file now.
        target: by path, the names that shall.
        scope: what may be touched.
        target_entry: what a path shall be.
        nlink: how many names the file at a path has on the disk; 0 if it is not there.

    Attributes:
        broken: names that share a file with a name outside the scope, and will not any more.
    """

    def __init__(
        self,
        changes: Mapping[bytes, Change],
        before: Mapping[bytes, frozenset[bytes]],
        target: Mapping[bytes, frozenset[bytes]],
        *,
        scope: Scope,
        target_entry: Callable[[bytes], Entry | None],
        nlink: Callable[[bytes], int],
    ) -> None:
        self.broken: set[bytes] = set()
        self._changes = changes
        self._before = before
        self._target = target
        self._scope = scope
        self._target_entry = target_entry
        self._nlink = nlink
        self._done: set[bytes] = set()

    def steps(self, change: Change) -> Iterator[Step]:
        """The steps for the group that `change` belongs to, the first time one of it comes."""
        after = change.after
        if after is None or after.kind == Kind.DIR or change.path in self._done:
            return
        members = self._members(change.path, after)
        touched = [path for path in members if path in self._changes]
        self._done.update(touched)
        keeper = self._keeper(members)
        if keeper is None:
            source = change.path
            yield self._step(Action.WRITE, source)
        else:
            source = keeper
            if self._standing(keeper) == "metadata":
                yield self._step(Action.METADATA, keeper)
        kept = self._inode(keeper) if keeper is not None else frozenset()
        for path in touched:
            if path != source and path not in kept:
                yield self._step(Action.LINK, path, source)
        self._note_broken(path for path in touched if path not in kept)

    def _step(self, action: Action, path: bytes, source: bytes = b"") -> Step:
        change = self._changes[path]
        return Step(action, path, change.before, change.after, source)

    def _members(self, path: bytes, after: Entry) -> list[bytes]:
        """The names in scope that shall share a file with `path`, itself included, in order."""
        names = self._target.get(path, frozenset())
        members = [path]
        for name in names - {path}:
            other = self._changes.get(name)
            if name not in self._scope:
                self.broken.add(path)
                continue
            shall = self._target_entry(name) if other is None else other.after
            if shall is not None and not differences(shall, after):
                members.append(name)
        return sorted(members)

    def _keeper(self, members: Sequence[bytes]) -> bytes | None:
        """A name whose inode can stay, as the file of the whole group."""
        for wanted in ("same", "metadata"):
            for path in members:
                if self._standing(path) == wanted and self._may_stay(path, members, wanted):
                    return path
        return None

    def _standing(self, path: bytes) -> str:
        """What has to be done to the inode at `path`: nothing, its metadata, or everything."""
        change = self._changes.get(path)
        if change is None:
            return "same"
        before, after = change.before, change.after
        if before is None or after is None:
            return "new"
        how = differences(before, after)
        if not how:
            return "same"
        if after.kind == Kind.SYMLINK or not METADATA.issuperset(how):
            return "new"
        return "metadata"

    def _may_stay(self, path: bytes, members: Sequence[bytes], standing: str) -> bool:
        inode = self._inode(path)
        if standing == "metadata":
            return inode <= set(members) and self._nlink(path) == len(inode)
        if inode <= set(members):
            return True
        if not all(name in self._scope for name in inode):
            return path not in self._changes
        claims = Counter(
            min(self._target.get(name, frozenset({name})))
            for name in sorted(inode)
            if self._standing(name) == "same"
        )
        return claims.most_common(1)[0][0] == min(self._target.get(path, frozenset({path})))

    def _inode(self, path: bytes) -> frozenset[bytes]:
        """The names that share the file at `path` now."""
        change = self._changes.get(path)
        if change is not None and change.before is None:
            return frozenset()
        return self._before.get(path, frozenset({path}))

    def _note_broken(self, touched: Iterable[bytes]) -> None:
        for path in touched:
            before = self._changes[path].before if path in self._changes else None
            if before is not None and before.kind == Kind.DIR:
                continue  # its links are itself and what is in it
            inode = self._inode(path)
            if inode and (
                any(name not in self._scope for name in inode) or self._nlink(path) > len(inode)
            ):
                self.broken.add(path)
