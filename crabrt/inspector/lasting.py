"""What outlived a turn: the value that the classifier judges, and what it says of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from crabrt.core.processes import LastingProcess
from crabrt.core.secrets import redact_text
from crabrt.process.sighting import Sighting

_NAMED = 3
LISTENS_NAMED = _NAMED
"""So many places where a process listens are told beside its command."""
_COMMAND_MOST = 60


class Lasting(msgspec.Struct, frozen=True):
    """The processes of a run after a turn, compared with where the turn began.

    Attributes:
        began, ended: those that are there now, or were.
        ran: those that were there and are, and have or may have run in between.
        slept: how many have not.
        unseen: why nobody knows; empty where it is known.
        unsure: those that are there now, were not, and may be the run's: nobody can tell.
    """

    began: tuple[LastingProcess, ...] = ()
    ended: tuple[LastingProcess, ...] = ()
    ran: tuple[LastingProcess, ...] = ()
    slept: int = 0
    unseen: str = ""
    unsure: tuple[LastingProcess, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything differs, or may."""
        return bool(self.began or self.ended or self.ran or self.unseen)

    @property
    def any(self) -> bool:
        """Whether there is anything to tell."""
        return self.changed or self.slept > 0 or bool(self.unsure)

    @property
    def evidence(self) -> str:
        """One line for people."""
        if self.unseen:
            return f"processes: unknown, as {self.unseen}"
        parts = [*_named(self.began, "new"), *_named(self.ran, "ran"), *_named(self.ended, "gone")]
        parts += _named(self.unsure, "unprotected, as nobody can tell whose it is")
        if not self.changed:
            calm = f"{self.slept} sleeping" if self.slept else "no lasting processes"
            return f"{calm}; {', '.join(parts)}" if parts else calm
        return f"processes: {', '.join(parts)}"


def compare(before: Sighting, now: Sighting) -> Lasting:
    """What is different `now`."""
    old = {one.identity: one for one in before.processes}
    new = {one.identity: one for one in now.processes}
    perhaps = {one.identity for one in before.unsure}
    both = [who for who in new if who in old]
    ran = [who for who in both if not now.slept_since(before, who)]
    return Lasting(
        tuple(one for who, one in new.items() if who not in old),
        tuple(one for who, one in old.items() if who not in new),
        tuple(new[who] for who in ran),
        len(both) - len(ran),
        now.unseen,
        tuple(one for one in now.unsure if one.identity not in perhaps and one.identity not in old),
    )


def _named(processes: Iterable[LastingProcess], word: str) -> list[str]:
    every = list(processes)
    parts = [f"{shown(one)} {word}" for one in every[:_NAMED]]
    if len(every) > _NAMED:
        parts.append(f"{len(every) - _NAMED} more {word}")
    return parts


def shown(process: LastingProcess) -> str:
    """``python3 -m http.server (pid 71, tcp 0.0.0.0:8000)``; without what looks like a secret."""
    program, *rest = process.command or (b"?",)
    words = b" ".join((os.path.basename(program) or program, *rest))
    text = redact_text(words.decode("utf-8", "backslashreplace").replace("\n", " "))
    if len(text) > _COMMAND_MOST:
        text = text[: _COMMAND_MOST - 3] + "..."
    return f"{text} ({', '.join((f'pid {process.pid}', *process.listens[:LISTENS_NAMED]))})"
