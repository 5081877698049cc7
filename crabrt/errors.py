"""Everything crabrt raises on purpose, as one tree grouped by what a handler would do about it.

::

    CrabError
    |-- UsageError              the caller asked for something that makes no sense      (exit 2)
    |   |-- WorkspaceRefused    the directory is not one to protect: too big, home, /
    |   |-- NoCurrentRun        a call has no run to belong to, or several
    |   `-- NotResumable        this run or turn cannot be re-entered, and why
    |-- NotFound                a run, turn, path or label that is not there            (exit 4)
    |   `-- Ambiguous           several match; the candidates are listed
    |-- WouldLoseChanges        a restore would overwrite what somebody else changed    (exit 5)
    |-- PreviewOutdated         it would no longer do what its preview listed           (exit 5)
    |-- Busy                    somebody alive holds it: wait, or stop them             (exit 6)
    |   |-- WorkspaceBusy       another live run family works in this directory
    |   |-- RunBusy             the run has a live writer
    |   `-- StoreBusy           the store is locked for maintenance
    |-- Damaged                 bytes on disk are not what was written                  (exit 7)
    |   |-- DamagedObject       one object: pack, offset and referrers are named
    |   |-- DamagedJournal      a broken chain in the middle of a journal
    |   `-- FormatTooNew        written by a newer crabrt, or needing a feature we lack
    |-- Diverged                a resumed loop asked for something else than it did     (exit 8)
    |-- Waiting                 a person has to decide                                  (exit 9)
    |   `-- InDoubt             an external effect may or may not have happened
    |-- RestoreFailed           the file system refused a restore, wholly or halfway    (exit 1)
    `-- Unprotected             a checkpoint could not be made                          (exit 1)
        |-- NotDurable          what an external effect depends on could not be made durable
        `-- StoreUnavailable    the store cannot be written: full, read-only, gone

``ReplayedError`` stands apart: it is the *application's* exception, re-raised on replay when its
class is not registered.

``kind`` is what programs match on (it is in every ``--json`` error). The kinds are append-only: a
released kind is never renamed and never reused.
"""

from __future__ import annotations

from typing import ClassVar


class CrabError(Exception):
    """Base of every error crabrt raises on purpose.

    Args:
        message: what went wrong and why, one sentence, without a trailing hint.
        where: the thing it is about (a path, ``RUN@TURN``, ``pack:offset``), or ``None``.
        hint: what to do next, or ``None``. Kept apart so that interfaces can show it apart.
    """

    kind: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = self.message if self.where is None else f"{self.where}: {self.message}"
        return text if self.hint is None else f"{text} ({self.hint})"


class UsageError(CrabError):
    """The caller asked for something that makes no sense."""

    kind = "usage"
    exit_code = 2


class WorkspaceRefused(UsageError):
    """The directory is not one to protect unless forced: too big, ``/``, or the home."""

    kind = "workspace-refused"


class NoCurrentRun(UsageError):
    """A call belongs to no run, or several live runs could own it and its context was lost."""

    kind = "no-current-run"


class NotResumable(UsageError):
    """This run, or this turn of it, cannot be re-entered; the message says why."""

    kind = "not-resumable"


class NotFound(CrabError):
    """A run, turn, path or label that does not exist."""

    kind = "not-found"
    exit_code = 4


class Ambiguous(NotFound):
    """Several runs match; ``candidates`` lists them."""

    kind = "ambiguous"

    def __init__(self, message: str, candidates: list[str], *, where: str | None = None) -> None:
        shown = ", ".join(candidates[:8]) + (", ..." if len(candidates) > 8 else "")
        super().__init__(message, where=where, hint=f"one of: {shown}")
        self.candidates = candidates


class WouldLoseChanges(CrabError):
    """A restore would overwrite what somebody changed since the last checkpoint.

    ``paths`` lists the conflicting paths (workspace-relative, raw bytes).
    """

    kind = "would-lose-changes"
    exit_code = 5

    def __init__(self, message: str, paths: list[bytes], *, where: str | None = None) -> None:
        super().__init__(
            message, where=where, hint="look with `crab diff`, or overwrite with --force (undoable)"
        )
        self.paths = paths


class PreviewOutdated(CrabError):
    """A restore was to do what a preview had listed, and would do something else by now."""

    kind = "preview-outdated"
    exit_code = 5


class Busy(CrabError):
    """Somebody alive holds what is needed."""

    kind = "busy"
    exit_code = 6


class WorkspaceBusy(Busy):
    """Another live run family works in this directory, one above it, or one below it."""

    kind = "workspace-busy"


class RunBusy(Busy):
    """The run has a live writer: only one process at a time may write a journal."""

    kind = "run-busy"


class StoreBusy(Busy):
    """The store is locked for maintenance by another process."""

    kind = "store-busy"


class Damaged(CrabError):
    """Bytes on disk are not what was written."""

    kind = "damaged"
    exit_code = 7


class DamagedObject(Damaged):
    """One stored object cannot be read back: missing, or its bytes do not match its id."""

    kind = "damaged-object"


class DamagedJournal(Damaged):
    """A journal is broken in the middle (a torn tail is not damage: it is cut)."""

    kind = "damaged-journal"


class FormatTooNew(Damaged):
    """Written by a newer crabrt, or it requires a feature this version does not have."""

    kind = "format-too-new"


class Diverged(CrabError):
    """A resumed loop made a different call, or the same call with a different request.

    ``diff`` is readable text: what was recorded against what was asked.
    """

    kind = "diverged"
    exit_code = 8

    def __init__(self, message: str, diff: str, *, where: str | None = None) -> None:
        super().__init__(
            message,
            where=where,
            hint='resume with on_divergence="branch" to go on differently in a new run',
        )
        self.diff = diff

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.diff}" if self.diff else super().__str__()


class Waiting(CrabError):
    """A person has to decide before the run can go on."""

    kind = "waiting"
    exit_code = 9


class InDoubt(Waiting):
    """An external effect has a durable intent and no result: it may or may not have happened."""

    kind = "in-doubt"


class RestoreFailed(CrabError):
    """The workspace cannot be written: full, read-only, failing; it says what was touched."""

    kind = "restore-failed"


class Unprotected(CrabError):
    """A checkpoint could not be made (raised only under ``strict=True``; else it is a warning)."""

    kind = "unprotected"


class NotDurable(Unprotected):
    """An external effect was stopped before it acted: what it depends on is not durable."""

    kind = "not-durable"


class StoreUnavailable(Unprotected):
    """The store cannot be written: disk full, read-only, permission denied, or gone."""

    kind = "store-unavailable"


class ReplayedError(Exception):
    """A recorded exception whose class is not registered, re-raised on replay.

    Attributes:
        tag: the recorded name of the class, e.g. ``"ValueError"`` or ``"app.errors.Refused"``.
        message: what ``str()`` of it gave when it was recorded.
    """

    def __init__(self, tag: str, message: str) -> None:
        super().__init__(message)  # a loop that shows str(e) to its model shows the same again
        self.tag = tag
        self.message = message

    def __repr__(self) -> str:
        return f"ReplayedError({self.tag!r}, {self.message!r})"
