"""The exit codes of ``crab``, in one table; every help text quotes it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a process status means. Unknown non-zero codes are failures."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    NOT_FOUND = 4
    REFUSED = 5
    BUSY = 6
    DAMAGED = 7
    DIVERGED = 8
    WAITING = 9
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "usage: the command line, or the setting it names, makes no sense",
    Exit.INCOMPLETE: "done, but incomplete: something was skipped or not protected, and is listed",
    Exit.NOT_FOUND: "no such run, turn, label or path",
    Exit.REFUSED: "refused: it would lose changes (use --force)",
    Exit.BUSY: "the store is locked, the workspace busy, or the run owned by a live process",
    Exit.DAMAGED: "the store is damaged",
    Exit.DIVERGED: "the resumed loop diverged from its record",
    Exit.WAITING: "waiting for a decision",
    Exit.INTERRUPTED: "interrupted",
}
"""What each code tells, for help texts and documents."""

ALWAYS = (Exit.DONE, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED)
"""The codes that any command may give."""
