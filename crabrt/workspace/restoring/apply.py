"""Carries a plan out: everything that needs space or reading first, then the visible changes.

*Staging* writes all new files under temporary names beside the old ones, and makes new
directories. Whatever can go wrong with content (a damaged object, a full disk) goes wrong here,
while nothing old has been touched, and is taken back. *Committing* only unlinks, renames, links and
sets metadata. If staging finds the disk full and the plan frees space, the files are staged one by
one while committing, after the removals.

Every step looks at the ground before it touches it (`ground`), and what it could not do is listed,
so that one stubborn path does not keep the others from coming back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from crabrt.core.failpoints import declare
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import Kind
from crabrt.errors import Damaged
from crabrt.workspace.restoring import files
from crabrt.workspace.restoring.ground import FOREIGN, IN_THE_WAY, Ground
from crabrt.workspace.restoring.handles import Blocked, Handles, NoDirectory, describe, split
from crabrt.workspace.restoring.metadata import kind_of
from crabrt.workspace.restoring.steps import Action, Plan, Step

_dir_made = declare("restore.directory_made", "a new directory is there, still empty and private")
_all_staged = declare("restore.all_staged", "every new file is complete, nothing old is touched")
_deleted = declare("restore.deleted", "a name is gone; what replaces it may not be there yet")
_renamed = declare("restore.renamed", "a file is in place")
_linked = declare("restore.linked", "a hard link is in place")
_metadata = declare("restore.metadata", "the metadata of a file is set in place")

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


class Unwritable(Exception):
    """The file system refuses everything: full, read-only, failing."""

    def __init__(self, error: OSError, path: bytes) -> None:
        super().__init__(describe(error))
        self.error = error
        self.path = path


class Apply:
    """One run of one plan. Not thread-safe.

    Args:
        ground: judges what is there; its handles must be allowed to loosen.
        reader: has all content.
        plan: what to do.
        restore_id: for temporary names.
        skip_damaged: list files whose content cannot be read instead of giving up.
        progress: see `Progress`.

    Attributes:
        problems: path -> why it was not brought to what the target says.
        partial: path -> what of its metadata could not be set.
        foreign: paths left alone because somebody else changed them.
        changed: whether anything old was changed so far.
    """

    def __init__(
        self,
        ground: Ground,
        reader: ObjectReader,
        plan: Plan,
        restore_id: str,
        *,
        skip_damaged: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.problems: dict[bytes, str] = {}
        self.partial: dict[bytes, str] = {}
        self.foreign: list[bytes] = []
        self.changed = False
        self._ground = ground
        self._handles: Handles = ground.handles
        self._reader = reader
        self._plan = plan
        self._id = restore_id
        self._skip_damaged = skip_damaged
        self._progress = progress
        self._staged: set[bytes] = set()
        self._made: list[bytes] = []
        self._total = len(plan.makings) + sum(1 for _ in plan.steps)
        self._count = 0

    def run(self) -> None:
        """Stage, then commit.

        Raises:
            Unwritable: the file system refuses; unless `changed`, everything was taken back.
            Damaged: an object cannot be read; the same.
        """
        if self._ground.recovering:
            self._sweep()
        try:
            self._stage_all()
        except Unwritable as refusal:
            self._take_back()
            full = refusal.error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not (full and self._frees_space()):
                raise
        except BaseException:
            self._take_back()
            raise
        _all_staged()
        try:
            self._commit_all()
        except BaseException:
            self._take_back()
            raise

    def _stage_all(self) -> None:
        for step in self._plan.makings:
            self._tick()
            try:
                if step.action is Action.WRITE:
                    self._stage(step)
                elif step.before is None:
                    self._make_directory(step, staging=True)
            except (Blocked, FileNotFoundError):
                continue  # what is in the way goes when committing
            except OSError as error:
                self._refused(step.path, error)
            except Damaged as error:
                self._damaged(step.path, error)

    def _commit_all(self) -> None:
        for steps, action in (
            (self._plan.removals, self._remove),
            (self._plan.makings, self._make),
            (self._plan.metadata, self._set_metadata),
            (self._plan.links, self._link),
        ):
            for step in steps:
                self._tick()
                if step.path not in self.problems:
                    self._attempt(step, action)

    def _attempt(self, step: Step, action: Callable[[Step], None]) -> None:
        try:
            action(step)
        except Blocked as reason:
            self.problems[step.path] = str(reason)
            if str(reason) == FOREIGN:
                self.foreign.append(step.path)
        except OSError as error:
            self._refused(step.path, error)
        except Damaged as error:
            self._damaged(step.path, error)

    def _refused(self, path: bytes, error: OSError) -> None:
        if error.errno in files.FATAL_ERRNOS:
            raise Unwritable(error, path) from error
        self.problems[path] = describe(error)

    def _damaged(self, path: bytes, error: Damaged) -> None:
        if not self._skip_damaged:
            raise error
        self.problems[path] = "its stored content is damaged"

    def _tick(self) -> None:
        self._count += 1
        if self._progress is not None:
            self._progress(self._count, self._total)

    def _frees_space(self) -> bool:
        return bool(self._plan.removals) or any(s.before is not None for s in self._plan.makings)

    # Taking back: temporary files, new directories nothing is in.

    def _sweep(self) -> None:
        """Remove what the interrupted restore left under temporary names."""
        for change in self._plan.changes:
            if change.after is not None and change.after.kind != Kind.DIR:
                self._quietly(change.path, self._drop_temp)

    def _take_back(self) -> None:
        for path in sorted(self._staged):
            self._quietly(path, self._drop_temp)
        self._staged.clear()
        for path in () if self.changed else reversed(self._made):
            self._quietly(path, self._unmake)
        self._made.clear()

    def _unmake(self, path: bytes) -> None:
        fd, name = self._handles.parent(path)
        self._handles.forget(path)
        os.rmdir(name, dir_fd=fd)

    def _drop_temp(self, path: bytes) -> None:
        def act(fd: int, name: bytes) -> None:
            files.remove(fd, files.temp_name(self._id, name))

        self._in_parent(path, act)

    def _quietly(self, path: bytes, action: Callable[[bytes], None]) -> None:
        """Clean up; what cannot be cleaned is listed and does not hide the first error."""
        try:
            action(path)
        except (Blocked, FileNotFoundError):
            return  # nothing of ours can be there
        except OSError as error:
            self.partial.setdefault(path, f"a leftover could not be removed: {describe(error)}")

    # Steps.

    def _in_parent(self, path: bytes, action: Callable[[int, bytes], None]) -> None:
        """Act in the directory that holds `path`, opened up if its mode forbids."""
        fd, name = self._handles.parent(path)
        try:
            action(fd, name)
        except PermissionError:
            if not self._handles.loosen(split(path)[0], fd):
                raise
            action(fd, name)

    def _stage(self, step: Step) -> None:
        entry = step.after
        assert entry is not None

        def act(fd: int, name: bytes) -> None:
            missing = files.stage(fd, files.temp_name(self._id, name), entry, self._reader)
            self._staged.add(step.path)
            self._note_partial(step.path, missing)

        if not self._ground.is_done(step):
            self._in_parent(step.path, act)

    def _note_partial(self, path: bytes, missing: list[str]) -> None:
        if missing:
            self.partial[path] = "; ".join(missing)

    def _make(self, step: Step) -> None:
        if step.action is Action.MKDIR:
            self._make_directory(step, staging=False)
            return
        if step.path not in self._staged:
            self._stage(step)
            if step.path not in self._staged:
                return  # done before the restore was interrupted

        def act(fd: int, name: bytes) -> None:
            self._ground.check_replaceable(fd, name, step)
            os.rename(files.temp_name(self._id, name), name, src_dir_fd=fd, dst_dir_fd=fd)
            self._staged.discard(step.path)
            self.changed = True
            _renamed()

        try:
            self._in_parent(step.path, act)
        finally:
            if step.path in self._staged:
                self._staged.discard(step.path)
                self._quietly(step.path, self._drop_temp)

    def _make_directory(self, step: Step, *, staging: bool) -> None:
        def act(fd: int, name: bytes) -> None:
            found = files.status(fd, name)
            if found is None:
                os.mkdir(name, 0o700, dir_fd=fd)
                if staging:
                    self._made.append(step.path)
                else:
                    self.changed = True
                _dir_made()
            elif kind_of(found.st_mode) != Kind.DIR:
                raise Blocked(IN_THE_WAY)

        self._in_parent(step.path, act)

    def _remove(self, step: Step) -> None:
        def act(fd: int, name: bytes) -> None:
            if self._may_remove(fd, name, step):
                self._unlink(fd, name, step)
                self.changed = True
                _deleted()

        try:
            self._in_parent(step.path, act)
        except FileNotFoundError:
            return
        except NoDirectory:
            if not self._ground.recovering:  # else the restore had got further than this
                raise
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Blocked("it still holds something that was not captured") from error
            if error.errno == errno.EBUSY:
                raise Blocked("a mount point") from error
            raise

    def _may_remove(self, fd: int, name: bytes, step: Step) -> bool:
        found = files.status(fd, name)
        if found is None:
            return False
        is_dir = kind_of(found.st_mode) == Kind.DIR
        if is_dir != (step.action is Action.RMDIR):
            if self._ground.recovering and step.after is not None:
                return False  # already replaced
            raise Blocked(FOREIGN)
        if not is_dir and not self._ground.is_captured(fd, name, found, step):
            raise Blocked(FOREIGN)
        return True

    def _unlink(self, fd: int, name: bytes, step: Step) -> None:
        if step.action is Action.RMDIR:
            self._handles.forget(step.path)
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)

    def _set_metadata(self, step: Step) -> None:
        entry = step.after
        assert entry is not None

        def act(fd: int, name: bytes) -> None:
            found = files.status(fd, name)
            if found is None or not self._ground.is_captured(fd, name, found, step):
                raise Blocked(FOREIGN)
            self.changed = True
            self._note_partial(step.path, files.in_place(fd, name, entry))
            _metadata()

        self._in_parent(step.path, act)

    def _link(self, step: Step) -> None:
        """Make `step.path` one more name of `step.source`: a temporary name, and a rename."""
        entry = step.after
        assert entry is not None
        if step.source in self.problems:
            raise Blocked("the file it shall share was not restored")
        parent, source_name = split(step.source)
        source_fd = os.dup(self._handles.directory(parent))

        def act(fd: int, name: bytes) -> None:
            source = files.status(source_fd, source_name)
            if source is None or kind_of(source.st_mode) != entry.kind:
                raise Blocked("the file it shall share was not restored")
            found = files.status(fd, name)
            if found is not None and os.path.samestat(found, source):
                return
            self._ground.check_replaceable(fd, name, step)
            temp = files.temp_name(self._id, name)
            os.link(source_name, temp, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
            self._staged.add(step.path)
            os.rename(temp, name, src_dir_fd=fd, dst_dir_fd=fd)
            self._staged.discard(step.path)
            self.changed = True
            _linked()

        try:
            self._in_parent(step.path, act)
        finally:
            os.close(source_fd)
