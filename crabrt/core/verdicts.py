"""What a turn did: effect classes, the verdict over a turn, and the evidence a person can read."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Effect(StrEnum):
    """The class of an effect. A turn has a set of them; the empty set is shown as ``none``."""

    NONE = "none"
    FILES = "files"
    PROCESSES = "processes"
    EXTERNAL = "external"


class Prior(StrEnum):
    """What a tool is declared to do, before it runs. ``auto``: nothing declared, look."""

    AUTO = "auto"
    NONE = "none"
    FILES = "files"
    PROCESSES = "processes"
    EXTERNAL = "external"


class Likely(StrEnum):
    """What a call will probably do. ``unknown``: nothing is said; it may do anything."""

    NONE = "none"
    FILES = "files"
    PROCESSES = "processes"
    EXTERNAL = "external"
    UNKNOWN = "unknown"


class Guess(msgspec.Struct, frozen=True, array_like=True):
    """What a call was taken for before it ran.

    It never spares anybody a look, and never narrows a verdict.

    Attributes:
        effect: the strongest of what it will probably do.
        reason: why, for people ("reads only: ls, grep"; "git push: leaves the machine").
    """

    effect: Likely = Likely.UNKNOWN
    reason: str = ""


class ExternalKind(StrEnum):
    """How an external effect behaves when it is repeated or must be taken back."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    COMPENSABLE = "compensable"
    IRREVERSIBLE = "irreversible"
    READ_THEN_WRITE = "read-then-write"


class InDoubtPolicy(StrEnum):
    """What to do on resume about an external call with an intent and no result."""

    CHECK = "check"
    RETRY = "retry"
    SKIP = "skip"
    ASK = "ask"
    FAIL = "fail"


class Consistency(StrEnum):
    """Of which instant the captured files are.

    ``exact``: nothing else ran, or it was frozen. ``per_file``: each file was unchanged while it
    was read. ``torn``: a file kept changing under every attempt.
    """

    EXACT = "exact"
    PER_FILE = "per_file"
    TORN = "torn"


class Protection(StrEnum):
    """The state of a turn's checkpoint.

    ``captured`` survives SIGKILL; ``durable`` survives power loss; ``replicated`` survives the loss
    of the machine; ``inherited``: nothing changed, the previous checkpoint serves; ``pending``: not
    yet made; ``unprotected``: it could not be made.
    """

    PENDING = "pending"
    CAPTURED = "captured"
    DURABLE = "durable"
    REPLICATED = "replicated"
    INHERITED = "inherited"
    UNPROTECTED = "unprotected"


class Verdict(msgspec.Struct, frozen=True):
    """The effect classes of a turn, and why.

    Attributes:
        effects: sorted effect classes; empty when the turn changed nothing.
        evidence: a readable phrase for each thing seen ("files: src/a.py content, build/ 14 new").
        files_added, files_changed, files_removed: counts of paths (directories are not counted).
        sample: the first changed paths, raw bytes, for display; at most 20.
        unobserved: what could not be looked at ("network: too many events for the kernel's buffer",
            "mapped files of 3 processes unchecked"); see `UNWATCHED`.
    """

    effects: tuple[Effect, ...] = ()
    evidence: tuple[str, ...] = ()
    files_added: int = 0
    files_changed: int = 0
    files_removed: int = 0
    sample: tuple[bytes, ...] = ()
    unobserved: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The effect classes as in ``--json``: ``["none"]`` for a turn that changed nothing."""
        return [str(effect) for effect in self.effects] or [str(Effect.NONE)]


NETWORK_TOO = ", network"
"""The end of a checkpoint's `observer` where connections were watched beside files."""

UNWATCHED = "network not watched"
"""How `Verdict.unobserved` begins where nobody looked at connections and it would have mattered."""


def is_passing(unobserved: str) -> bool:
    """Whether one of `Verdict.unobserved` is told beside who observed, and is no warning.

    Without root nobody looks at connections, in turn after turn.
    """
    return unobserved.startswith(UNWATCHED)
